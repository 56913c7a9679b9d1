"""Folds: groups dealt into k parts, each of which validates once."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import compose

from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, Data
from danube_sweep.data.kinds.arena import ArenaData
from danube_sweep.data.kinds.generated import GeneratedData, generate, write_csv
from danube_sweep.data.kinds.table import TableData
from danube_sweep.data.kinds.text import TextData
from danube_sweep.data.kinds.tokens import TokensData
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import Record
from danube_sweep.data.size import data_size
from danube_sweep.data.split import split
from danube_sweep.errors import ConfigError, DataError

Tiny = Callable[..., Config]


def records_of(groups: int, per_group: int = 2, classes: int = 2) -> list[Record]:
    def label(row: int) -> tuple[float, ...]:
        return tuple(float(place == row % classes) for place in range(classes))

    return [Record(str(n), (f"t{n}",), label(n), f"g{n % groups}") for n in range(groups * per_group)]


def dealt(rows: Sequence[Record], **fields: object) -> list[list[Record]]:
    """The validation rows of every fold."""
    config = Data(**fields)  # type: ignore[arg-type]
    return [split(rows, replace(config, fold=fold))[1] for fold in range(config.folds or 0)]


@pytest.mark.parametrize("stratified", [False, True])
def test_every_row_validates_once_and_no_group_is_in_two_folds(stratified: bool) -> None:
    rows = records_of(50, 3)
    folds = dealt(rows, folds=5, stratified=stratified)
    assert sorted(int(row.id) for fold in folds for row in fold) == list(range(150))
    groups = [{row.group for row in fold} for fold in folds]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 50
    assert all([int(row.id) for row in fold] == sorted(int(row.id) for row in fold) for fold in folds)
    train, validation, test = split(rows, Data(folds=5, fold=3, stratified=stratified))
    assert (validation, test) == (folds[3], [])
    assert train == [row for row in rows if row not in validation]


@pytest.mark.parametrize("stratified", [False, True])
def test_folds_follow_the_split_seed_alone(stratified: bool) -> None:
    rows = records_of(50)
    same = dealt(rows, folds=4, stratified=stratified, max_length=64, order_seed=3, validation_fraction=0.5)
    assert dealt(rows, folds=4, stratified=stratified) == same
    assert dealt(rows, folds=4, stratified=stratified, split_seed=1) != same


def test_the_test_part_is_cut_off_first_and_is_in_no_fold() -> None:
    rows = records_of(50)
    parts = [split(rows, Data(folds=3, fold=fold, test_fraction=0.2)) for fold in range(3)]
    (test,) = {tuple(row.id for row in part[2]) for part in parts}
    assert len(test) == 20
    assert list(test) == [row.id for row in split(rows, Data(test_fraction=0.2))[2]]
    assert sorted([*test, *(row.id for part in parts for row in part[1])], key=int) == [row.id for row in rows]


def test_stratified_folds_have_the_shares_of_the_classes() -> None:
    rows = [Record(str(n), (f"t{n}",), (1.0, 0.0) if n % 10 else (0.1, 0.9), f"g{n}") for n in range(200)]
    rare = [sum(row.label == (0.1, 0.9) for row in fold) for fold in dealt(rows, folds=5, stratified=True)]
    assert rare == [4] * 5


def test_a_class_with_fewer_rows_than_folds_is_spread_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    rows = [Record(str(n), (f"t{n}",), (float(n > 1), float(n < 2)), f"g{n}") for n in range(40)]
    found = [Counter(row.label for row in fold)[(0.0, 1.0)] for fold in dealt(rows, folds=4, stratified=True)]
    assert sorted(found) == [0, 0, 1, 1]
    assert not recwarn.list


def test_what_cannot_be_dealt_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"data\.folds=5: there are only 3 groups .*give fewer folds"):
        dealt(records_of(3, 20), folds=5)
    for label in (None, (0.5,), (1.0, 1.0), (2.0, 0.0, 1.0)):
        unclassed = [replace(row, label=label) for row in records_of(20)]
        with pytest.raises(DataError, match=r"do not have one class each; give data\.stratified=false"):
            dealt(unclassed, folds=2, stratified=True)
    with pytest.raises(DataError, match=r"no class has as many rows as data\.folds=5"):
        dealt(records_of(8, 1, classes=4), folds=5, stratified=True)
    uneven = zip("0123000000", [2, 1, 2, 0, 2, 0, 0, 0, 1, 1], strict=True)
    rows = [Record(str(n), ("t",), tuple(float(k == y) for k in range(3)), g) for n, (g, y) in enumerate(uneven)]
    with pytest.raises(DataError, match=r"leaves fold 2 of data\.folds=4 without a row: the groups are too uneven"):
        dealt(rows, folds=4, stratified=True)


def test_every_kind_of_data_is_dealt(tmp_path: Path) -> None:
    write_csv(generate(60, 0, 0.1), tmp_path / "arena.csv")
    (tmp_path / "table.csv").write_text(
        "text,label,user\n" + "".join(f"t{n},{'ab'[n % 2]},{n % 9}\n" for n in range(40))
    )
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": f"t{n}"}) + "\n" for n in range(30)))
    (tmp_path / "words.jsonl").write_text(
        "".join(json.dumps({"tokens": [f"t{n}", "x"], "labels": ["O", "B-X"]}) + "\n" for n in range(30))
    )
    kinds: list[tuple[Data, int]] = [
        (TokensData(path=str(tmp_path / "words.jsonl")), 30),
        (ArenaData(path=str(tmp_path / "arena.csv"), stratified=True), 60),
        (TableData(path=str(tmp_path / "table.csv"), group_column="user", stratified=True), 40),
        (TextData(path=[str(tmp_path / "text.jsonl")]), 30),
        (GeneratedData(rows=50), 50),
    ]
    for data, count in kinds:
        data.folds = 3
        parts = [load_parts(replace(data, fold=fold)) for fold in range(3)]
        ids = [row.id for part in parts for row in part.validation]
        assert len(ids) == len(set(ids)) == count
        assert all(len(part.train) + len(part.validation) == count for part in parts)


def test_a_test_file_stays_beside_the_folds_and_max_rows_draws_of_each_part(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.csv") for name in ("train", "test")]
    for number, file in enumerate(files):
        write_csv(generate(40 + number, number, 0.0), file)
    parts = load_parts(ArenaData(path=files[0], test_path=files[1], test_fraction=0.5, folds=4, fold=1))
    assert (len(parts.train) + len(parts.validation), len(parts.test)) == (40, 41)
    cut = load_parts(ArenaData(path=files[0], folds=4, fold=1, max_rows=3))
    assert (len(cut.train), len(cut.validation)) == (3, 3)
    assert all(row in parts.train for row in cut.train)
    assert all(row in parts.validation for row in cut.validation)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.folds=5"], r"data\.folds=5 needs the fold .*-m data\.fold=0,1,2,3,4 for all"),
        (["data.folds=20"], r"-m data\.fold=range\(20\)"),
        (["data.fold=2"], r"data\.fold=2 needs the number of folds: give data\.folds"),
        (["data.folds=5", "data.fold=5"], r"data\.fold must be from 0 to 4 with data\.folds=5, got 5"),
        (["data.folds=5", "data.fold=-1"], r"from 0 to 4 .*got -1"),
        (["data.folds=1", "data.fold=0"], r"data\.folds must be at least 2, got 1; for one split use"),
        (["data.stratified=true"], r"data\.stratified=true deals rows into folds: give data\.folds"),
        (
            ["data=arena", "data.path=a.csv", "data.validation_path=b.csv", "data.folds=5", "data.fold=0"],
            r"data\.validation_path and data\.folds=5 both choose the validation rows; give one",
        ),
        (
            ["data=text", "data.path=[a.csv]", "head=lm", "data.folds=5", "data.fold=0", "data.stratified=true"],
            r"data=text and data=tokens have none; give data\.stratified=false",
        ),
    ],
)
def test_a_mistake_with_folds_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(overrides)


def test_a_fold_needs_no_validation_fraction() -> None:
    assert compose(["data.folds=2", "data.fold=1", "data.validation_fraction=0"]).data.fold == 1


def test_each_fold_is_a_trial_of_its_own(tiny: Tiny) -> None:
    folds = [tiny("data.folds=3", f"data.fold={fold}") for fold in range(3)]
    others = [tiny(), tiny("data.folds=4", "data.fold=0"), tiny("data.folds=3", "data.fold=0", "data.stratified=true")]
    assert len({trial_hash(config) for config in [*folds, *others]}) == 6


def test_the_rows_of_an_epoch_are_those_outside_the_fold(tmp_path: Path) -> None:
    def rows(data: Data) -> int:
        size = data_size(data)
        assert size is not None
        return size.rows

    assert rows(GeneratedData(rows=100, folds=4, fold=0)) == 75
    assert rows(GeneratedData(rows=100, folds=4, fold=0, test_fraction=0.2)) == 60
    assert rows(GeneratedData(rows=100, test_fraction=0.2)) == 60
    for name, count in (("train", 50), ("validation", 20)):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"{name} {n},{n % 2}\n" for n in range(count)))
    table = TableData(path=str(tmp_path / "train.csv"), validation_path=str(tmp_path / "validation.csv"))
    whole = replace(table, train_on_validation=True)
    assert (rows(table), rows(whole), rows(replace(whole, max_rows=30))) == (50, 70, 50)
    (tmp_path / "a.csv").write_text("text\n" + ("a" * 64 + "\n") * 100)
    text = TextData(path=[str(tmp_path / "a.csv")], max_length=16)
    assert (rows(text), rows(replace(text, folds=2, fold=0))) == (80, 50)
