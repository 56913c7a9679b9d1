"""Rows as the model reads them: the text is the tokenizer's own, with a mark wherever tokens were cut."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workbench import rows_of

from danube_sweep.config.schema import Config
from danube_sweep.data.shown_rows import row_lines, rows_to_show
from danube_sweep.training.prepare import Prepared, prepare

Tiny = Callable[..., Config]
CUT = re.compile(r"\[\.\.\. ([\d,]+) tokens? cut \.\.\.\]")


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.path={file}"


def shown(config: Config, row: int = 0, prepared: Prepared | None = None) -> list[str]:
    prepared = prepared or prepare(config)
    rest = {"classes": prepared.classes, "target": config.head.target, "side": config.data.truncation}
    return row_lines(prepared.parts["train"], row, prepared.tokenizer, **rest)


LONG = " ".join(f"w{n}" for n in range(40))


@pytest.mark.parametrize("side", ["left", "right", "middle"])
def test_a_cut_is_marked_where_it_is_with_its_tokens(tmp_path: Path, tiny: Tiny, side: str) -> None:
    rows = [{"text": f"{LONG} {n}", "label": n % 2} for n in range(20)]
    base = ["data=table", written(tmp_path / "a.jsonl", rows), "head=sequence"]
    config = tiny(*base, "data.max_length=32", f"data.truncation={side}")
    prepared = prepare(config)
    head, size, text = shown(config, 0, prepared)
    train = prepared.parts["train"]
    whole = len(prepared.tokenizer(f"{LONG} {int(train.ids[0]) - 1}")["input_ids"]) + 1
    assert size == f"  32 tokens, {whole - 32} more cut"
    before, count, after = CUT.split(text.removeprefix("    "))
    assert int(count) == whole - 32
    assert prepared.tokenizer.decode(train.tokens[0]) == before + after
    assert after.endswith("</s>")
    kept = [len(prepared.tokenizer(part.removesuffix("</s>"))["input_ids"]) for part in (before, after)]
    assert kept == {"left": [0, 31], "right": [31, 0], "middle": [16, 15]}[side]
    assert head == f"row 1, id {train.ids[0]}, label {(int(train.ids[0]) - 1) % 2}"


def test_two_passes_and_their_markup_are_shown(tiny: Tiny) -> None:
    lines = shown(tiny("head=bradley_terry_ties"))
    assert [line for line in lines if line.startswith("  sequence")] == [
        f"  sequence {n} of 2: {len(tokens)} tokens"
        for n, tokens in enumerate(prepare(tiny("head=bradley_terry_ties")).parts["train"].tokens[:2], 1)
    ]
    text = "\n".join(lines)
    assert text.count("    Prompt: ") == text.count("    Answer: ") == text.count("</s>") == 2
    assert re.search(r"label winner_(model_a|model_b|tie)$", lines[0])


def test_the_cue_of_a_causal_head_is_shown(tiny: Tiny) -> None:
    assert shown(tiny("head=causal", "head.words=[A,B,tie]"))[-1] == "    Better answer:"


def test_words_are_shown_with_their_labels(tmp_path: Path, tiny: Tiny) -> None:
    row = {"tokens": ["Anna", "Karenina", "lives", "in", "Oslo", "."], "labels": ["B-N", "I-N", "O", "O", "B-C", "O"]}
    rows = [{**row, "tokens": [*row["tokens"][:4], f"City{n}", "."]} for n in range(12)]
    config = tiny("data=tokens", written(tmp_path / "a.jsonl", rows), "head=token", "data.overlap=4")
    prepared = prepare(config)
    name = int(prepared.parts["train"].ids[0].partition(":")[0]) - 1
    head, _, text = shown(config, 0, prepared)
    assert head.endswith(f"labels: Anna B-N, Karenina I-N, City{name} B-C, 3 of 6 words O")
    assert text == f"    Anna Karenina lives in City{name} ."


@pytest.mark.parametrize(
    ("head", "label", "said"),
    [
        ("regression", 2.5, "label 2.5"),
        ("multilabel", ["a", "b"], "labels a, b"),
        ("multilabel", [], "labels none"),
    ],
)
def test_each_kind_of_label_is_shown(tmp_path: Path, tiny: Tiny, head: str, label: Any, said: str) -> None:
    others = [1, 2] if head == "regression" else [["a"], ["b"]]
    rows = [{"text": f"t{n}", "label": [label, *others][n % 3]} for n in range(12)]
    config = tiny("data=table", written(tmp_path / "a.jsonl", rows), f"head={head}")
    prepared = prepare(config)
    row = next(place for place, name in enumerate(prepared.parts["train"].ids) if int(name) % 3 == 1)
    assert shown(config, row, prepared)[0].endswith(said)


def test_soft_labels_are_shown_as_shares(tmp_path: Path, tiny: Tiny) -> None:
    rows = [{"text": f"t{n}", "no": 0.25, "yes": 0.75} for n in range(12)]
    fields = ["data.soft_label_columns=[no,yes]", "head=sequence"]
    assert shown(tiny("data=table", written(tmp_path / "a.jsonl", rows), *fields))[0].endswith(
        "label no 0.25, yes 0.75"
    )


def test_the_first_rows_and_the_longest_are_shown() -> None:
    train = rows_of([[1] * length for length in [2, 3, 2, 2, 2, 9, 4, *[3] * 41]])
    longest = 5
    assert rows_to_show(train, 3) == [0, 1, longest]
    assert rows_to_show(train, 1) == [0]
    assert rows_to_show(train, 0) == []
    assert rows_to_show(train, longest + 2) == list(range(longest + 2))
    assert rows_to_show(train, 1000) == list(range(48))
