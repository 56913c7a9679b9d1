"""The facts about data that are printed before training, counted here by hand or by other libraries."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danube_sweep.config.schema import Config
from danube_sweep.data.description import DataDescription, restored
from danube_sweep.data.kinds.generated import generate, write_csv
from danube_sweep.training.prepare import prepare

Tiny = Callable[..., Config]


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.path={file}"


def described(config: Config) -> DataDescription:
    return prepare(config).description


def test_rows_classes_lengths_and_empty_texts_are_those_of_the_file(tmp_path: Path, tiny: Tiny) -> None:
    texts = ["", "  ", *(" ".join(["word"] * (n % 40 + 1)) + f" {n}" for n in range(98))]
    rows = [{"text": text, "label": "a" if n % 4 else "b"} for n, text in enumerate(texts)]
    config = tiny("data=table", written(tmp_path / "a.jsonl", rows), "head=sequence", "data.max_length=30")
    prepared = prepare(config)
    found = prepared.description
    assert {name: part.rows for name, part in found.parts.items()} == {"training": 80, "validation": 20}
    assert found.classes == {"a": 75, "b": 25}
    assert sum(part.empty_rows for part in found.parts.values()) == 2
    # The oracle: the tokenizer by itself over the texts, with the end token that each row gets.
    ids = {*prepared.parts["train"].ids}
    lengths = [len(prepared.tokenizer(text)["input_ids"]) + 1 for n, text in enumerate(texts, 1) if str(n) in ids]
    train = found.parts["training"]
    assert train.median_tokens == int(np.median(lengths))
    assert train.longest_tokens == max(lengths)
    assert train.cut_rows == sum(length > 30 for length in lengths) > 0
    lines = found.lines()
    assert lines[0].startswith("data: 80 training rows and 20 validation rows, in ")
    assert lines[1] == "classes: 2: a (75), b (25)"
    assert f"{train.cut_rows} over data.max_length=30 ({100 * train.cut_rows / 80:.3g} %)" in lines[2]


def test_of_many_classes_the_largest_and_the_smallest_are_told(tmp_path: Path, tiny: Tiny) -> None:
    labels = [name for place, name in enumerate("abcdefgh", 1) for _ in range(3 * place)]
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    found = described(tiny("data=table", written(tmp_path / "a.jsonl", rows), "head=sequence"))
    assert found.classes == Counter(labels)
    assert found.lines()[1] == "classes: 8: most h (24), fewest a (3)"


def test_other_labels_are_described_too(tmp_path: Path, tiny: Tiny) -> None:
    numbers = [{"text": f"t{n}", "label": n} for n in range(11)]
    found = described(tiny("data=table", written(tmp_path / "a.jsonl", numbers), "head=regression"))
    assert found.lines()[1] == "labels: numbers, lowest 0, mean 5, highest 10"
    several = [{"text": f"t{n}", "label": ["a", "b"][: n % 3]} for n in range(12)]
    found = described(tiny("data=table", written(tmp_path / "b.jsonl", several), "head=multilabel"))
    assert found.lines()[1] == "classes: 2: a (8), b (4), none (4)"
    words = [{"tokens": ["x", f"y{n}"], "labels": ["O", "B-Z"]} for n in range(10)]
    base = ["data=tokens", written(tmp_path / "c.jsonl", words), "head=token", "data.overlap=4"]
    assert described(tiny(*base)).lines()[1] == "classes: 2: O (10), B-Z (10)"
    running = [{"text": f"a text of {'abcdefghij'[n]}"} for n in range(10)]
    written(tmp_path / "d.jsonl", running)
    found = described(tiny("data=text", f"data.path=[{tmp_path / 'd.jsonl'}]", "head=lm"))
    assert [line.partition(":")[0] for line in found.lines()] == ["data", "lengths"]


def test_a_class_that_no_training_row_has_is_a_warning(tmp_path: Path, tiny: Tiny) -> None:
    rows = [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(20)]
    own = [{"text": "x", "label": "c"}, {"text": "y", "label": "a"}]
    paths = [written(tmp_path / "a.jsonl", rows), written(tmp_path / "b.jsonl", own).replace("path", "validation_path")]
    found = described(tiny("data=table", *paths, "data.classes=[a,b,c,d]", "head=sequence"))
    assert found.untrained == ["c"]
    assert "warning: no training row has 1 of the classes: c" in found.lines()


def test_rows_that_stand_in_both_parts_are_a_warning_with_its_cure(tmp_path: Path, tiny: Tiny) -> None:
    # Every text is there twice, in lower and in upper case: two groups by default, one by group_by=text.
    rows = [{"text": word, "label": n % 2} for n in range(40) for word in (f"text {n:03}", f"TEXT {n:03}")]
    base = ["data=table", written(tmp_path / "a.jsonl", rows), "head=sequence"]
    found = described(tiny(*base))
    assert (found.repeated, found.groups) == (40, 80)
    (warning,) = [line for line in found.lines() if line.startswith("warning")]
    assert warning.startswith(f"warning: {found.leaks['text']} of 16 validation rows have a text that also occurs in")
    assert warning.endswith("data.group_by=text keeps equal texts in one part")
    cured = described(tiny(*base, "data.group_by=text"))
    assert (cured.leaks["text"], cured.groups) == (0, 40)
    assert not [line for line in cured.lines() if line.startswith("warning")]


def test_templates_that_stand_in_both_parts_are_a_warning_with_its_cure(tmp_path: Path, tiny: Tiny) -> None:
    texts = [f"the order of customer {n} is late by {n % 7} days, {'abcdefgh'[n % 8]}" for n in range(40)]
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(texts)]
    base = ["data=table", written(tmp_path / "a.jsonl", rows), "head=sequence"]
    found = described(tiny(*base))
    assert (found.repeated, found.repeated_templates) == (0, 32)
    assert found.leaks == {"text": 0, "template": 8}
    assert found.lines()[-1].endswith("data.group_by=template keeps them in one part")
    assert described(tiny(*base, "data.group_by=template")).leaks["template"] == 0


def test_files_of_their_own_that_share_prompts_are_a_warning(tmp_path: Path, tiny: Tiny) -> None:
    records = generate(40, 0, 0.0)
    write_csv(records[:30], tmp_path / "a.csv")
    write_csv(records[25:], tmp_path / "b.csv")
    prompts = {record.texts[0] for record in records[:30]}
    shared = sum(record.texts[0] in prompts for record in records[25:])
    paths = [f"data.path={tmp_path / 'a.csv'}", f"data.validation_path={tmp_path / 'b.csv'}"]
    found = described(tiny("data=arena", *paths))
    assert found.leaks["text"] == shared >= 5
    warning = next(line for line in found.lines() if line.startswith("warning"))
    assert "a prompt that also occurs in training" in warning
    assert warning.endswith("remove them from the training file or from data.validation_path")


def test_a_description_comes_back_from_json(tiny: Tiny) -> None:
    found = described(tiny())
    assert restored(json.loads(json.dumps(asdict(found)))) == found
    for damaged in (None, [], {}, {"parts": {"training": {}}}, {"parts": []}, "text"):
        assert restored(damaged) is None


def test_real_data_are_described(data_dir: Path, tiny: Tiny) -> None:
    path = data_dir / "banking77_train.csv"
    found = described(
        tiny("data=table", f"data.path={path}", "head=sequence", "data.id_column=id", "data.max_rows=500")
    )
    assert (found.parts["training"].rows, found.parts["validation"].rows, len(found.classes)) == (500, 500, 77)


@pytest.mark.parametrize("name", ["arena_human.csv"])
def test_real_prompts_are_described(data_dir: Path, tiny: Tiny, name: str) -> None:
    found = described(tiny("data=arena", f"data.path={data_dir / name}", "data.max_rows=200", "data.group_by=text"))
    assert found.unit == "prompt"
    assert found.leaks["text"] == 0
