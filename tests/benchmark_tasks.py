"""Tiny local tasks of every kind that the harness has, as YAML and jsonl."""

import json
import random
from pathlib import Path

WORDS = ["red", "blue", "green", "small", "large", "old", "new", "fast", "slow", "warm", "cold", "dry"]

CHOICE = """
output_type: multiple_choice
doc_to_text: "Q: {{q}}\\nA:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
PAGES = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{page}}"
num_fewshot: 0
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
ANSWERS = """
output_type: generate_until
doc_to_text: "Q: {{q}}\\nA:"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def words(drawn: random.Random, number: int) -> str:
    return " ".join(drawn.choice(WORDS) for _ in range(number))


def rows(kind: str, number: int, seed: int) -> list[dict[str, object]]:
    drawn = random.Random(seed)
    if kind == "pages":
        return [{"page": words(drawn, 12)} for _ in range(number)]
    if kind == "answers":
        return [{"q": words(drawn, 3), "a": words(drawn, 1)} for _ in range(number)]
    choices = [[words(drawn, count) for count in (1, 2, 4)] for _ in range(number)]
    return [{"q": words(drawn, 5), "choices": one, "gold": drawn.randrange(3)} for one in choices]


def write_rows(file: Path, written: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in written))


def write_task(folder: Path, name: str, body: str, **splits: Path) -> None:
    """A task whose splits are jsonl files: `train=…`, `validation=…`, `test=…`."""
    named = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
    data = {"data_files": {split: str(file) for split, file in splits.items()}}
    head = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "metadata": {"version": 1.0}}
    head |= {named[split]: split for split in splits}
    (folder / f"{name}.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()) + body)


def tiny_tasks(folder: Path) -> Path:
    """tiny_choice, tiny_pages and tiny_answers have a test split; tiny_valid and tiny_read a validation split."""
    folder.mkdir()
    for kind, body in (("choice", CHOICE), ("pages", PAGES), ("answers", ANSWERS)):
        train, test = folder / f"{kind}_train.jsonl", folder / f"{kind}_test.jsonl"
        write_rows(train, rows(kind, 8, 0))
        write_rows(test, rows(kind, 12 if kind == "choice" else 6, 1))
        write_task(folder, f"tiny_{kind}", body, train=train, test=test)
    write_task(
        folder, "tiny_valid", CHOICE, train=folder / "choice_train.jsonl", validation=folder / "choice_test.jsonl"
    )
    write_task(folder, "tiny_read", PAGES, train=folder / "pages_train.jsonl", validation=folder / "pages_test.jsonl")
    group = "group: tiny_both\ntask: [tiny_choice, tiny_valid]\naggregate_metric_list: [{metric: acc_norm}]\n"
    (folder / "tiny_both.yaml").write_text(group)
    return folder
