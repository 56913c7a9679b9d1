"""The harness over a real model: our scores against plain lm_eval in fp32, and what int8 and nf4 cost.

    python benchmarks/general_ability.py MODEL_FOLDER --data FOLDER [--items 200]

The task is made from banking77_test.csv in the data folder: which of two topics a customer's question has. Questions
have at most 35 letters. The wrong topic is drawn from the other 76 with a fixed seed. The ratio at the end is our
CPU-seconds over those of lm_eval.
"""

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHOICES, LETTERS = 2, 35
TASK = "banking_topics"
YAML = """
output_type: multiple_choice
doc_to_text: "Customer: {{text}}\\nTopic of the question:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
"""


@dataclass(frozen=True)
class Sized:
    """A model's folder, and how much is asked of it."""

    model: Path
    tasks: Path
    rows: int


def write_banking(folder: Path, data: Path, items: int) -> Path:
    """The task's YAML and its items, drawn evenly over the file; returns its folder."""
    with (data / "banking77_test.csv").open(newline="", encoding="utf-8") as stream:
        every = list(csv.DictReader(stream))
    topics = sorted({row["label"] for row in every})
    every = [row for row in every if len(row["text"]) <= LETTERS]
    drawn = random.Random(0)
    written = []
    for row in drawn.sample(every, items):
        choices = [row["label"], *drawn.sample([one for one in topics if one != row["label"]], CHOICES - 1)]
        drawn.shuffle(choices)
        spoken = [one.replace("_", " ").rstrip("?") for one in choices]
        written.append({"text": row["text"], "choices": spoken, "gold": choices.index(row["label"])})
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{TASK}.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in written), encoding="utf-8")
    head = {"task": TASK, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}}
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in {**head, "test_split": "test"}.items()]
    (folder / f"{TASK}.yaml").write_text("".join(lines) + YAML, encoding="utf-8")
    return folder


def plainly(asked: Sized) -> Any:
    """What `lm_eval --model hf` reports."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(asked.tasks), include_defaults=False)
    given = {"pretrained": str(asked.model), "dtype": "float32"}
    lm_eval.evaluator.add_env_info = lambda _results: None  # a report about the machine, which takes seconds
    return lm_eval.simple_evaluate(
        "hf", given, [TASK], num_fewshot=0, batch_size=asked.rows, device="cpu", task_manager=manager
    )


def ours(asked: Sized, precision: Sequence[str]) -> Any:
    """Our score of the same model, stored as asked."""
    import torch

    from danube_sweep.benchmark.find_tasks import find_task
    from danube_sweep.benchmark.harness_model import harness_model
    from danube_sweep.benchmark.score_task import Settings, score_task
    from danube_sweep.composer import compose
    from danube_sweep.data.tokenizer import load_tokenizer
    from danube_sweep.model.backbone import load_backbone

    config = compose(["model=auto", f"model.path={asked.model}", "device=cpu", *precision])
    device = torch.device("cpu")
    backbone = load_backbone(config.model, config.precision, with_lm_head=True, device=device)
    tokenizer = load_tokenizer(config.model)
    with harness_model(backbone, tokenizer, batch_rows=asked.rows, folder=asked.model) as model:
        (found,) = score_task(model, find_task(TASK, asked.tasks), Settings(shots=0))
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the CPU-seconds that it took."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rows", type=int, default=32, help="rows at a time")
    parser.add_argument("--keep", type=Path, help="where the task is written, and left")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        tasks = write_banking(given.keep or Path(place) / "tasks", given.data, given.items)
        compare(Sized(given.model, tasks, given.rows))


def compare(asked: Sized) -> None:
    """Prints the table."""
    import lm_eval.evaluator
    import lm_eval.models.huggingface  # noqa: F401  (its import is nobody's seconds)

    from danube_sweep.benchmark.forgetting import change
    from danube_sweep.terminal.quiet_libraries import quiet_libraries

    quiet_libraries()
    plain, plain_s = timed(lambda: plainly(asked))
    row, samples = plain["results"][TASK], plain["samples"][TASK]
    print(f"lm_eval fp32   acc_norm {row['acc_norm,none']!r} +- {row['acc_norm_stderr,none']:.4f}  {plain_s:.0f} CPU s")
    first, first_s = timed(lambda: ours(asked, ["precision=fp32"]))
    same = [one["acc_norm"] for one in samples] == [item[0] for item in first.scores]
    prompts = [f"{one['doc_hash'][:16]}{one['prompt_hash'][:16]}" for one in samples] == first.prompts
    equal = first.metrics["acc,none"]["value"] == row["acc,none"] and first.value == row["acc_norm,none"]
    print(f"ours fp32      acc_norm {first.value!r} +- {first.stderr:.4f}  {first_s:.0f} CPU s")
    print(f"equal: scores {equal}, every item {same}, every prompt {prompts}")
    for storage in ("int8", "nf4"):
        found, seconds = timed(lambda: ours(asked, [f"precision={storage}", "precision.compute=fp32"]))  # noqa: B023
        apart = change(first, found)
        low, high = apart.interval or (float("nan"), float("nan"))
        said = f"acc_norm {found.value:.4f} +- {found.stderr:.4f}  {apart.value:+.4f} ({low:+.4f} .. {high:+.4f})"
        print(f"ours {storage:<9} {said}  {seconds:.0f} CPU s")
    print(f"ratio: ours / lm_eval in fp32 {first_s / plain_s:.2f} CPU s")


if __name__ == "__main__":
    main()
