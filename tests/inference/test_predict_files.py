"""What predict reads and writes: the file's own ids, a sample's columns and order, and nothing onto what it reads."""

import csv
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import tiny_config
from pyarrow import parquet
from runs import CPU, train
from workbench import save_base

from danube_sweep.cli import main
from danube_sweep.errors import CheckpointError, ConfigError, DataError, DiskError, ModelError
from danube_sweep.inference.export.export_run import Options, write_export
from danube_sweep.inference.predict import Form, Place, Trained, load, load_run, open_run, predict_file
from danube_sweep.inference.prediction_table import csv_line

pytestmark = pytest.mark.usefixtures("cache_of_the_file")

TEXTS = [f"how far is {k}" for k in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over pairs, whose classes are model_a, model_b and tie, and its data."""
    place = tmp_path_factory.mktemp("pairs")
    rows = [
        (f"p{k}", "yes " * (1 + k % 3), "no " * (1 + k % 4), ["model_a", "model_b", "tie"][k % 3]) for k in range(30)
    ]
    lines = ["prompt,response_a,response_b,winner", *(",".join(row) for row in rows)]
    (place / "train.csv").write_text("\n".join(lines) + "\n")
    data = ["data=pairs", f"data.path={place / 'train.csv'}", "data.tie_labels=[tie]"]
    train(tiny_config(*data, "trainer.max_steps=2", "optimizer.lr=0.01"), place / "run")
    return place


@pytest.fixture(scope="module")
def trained(folder: Path) -> Trained:
    return load_run(folder / "run", CPU)


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run whose classes are de, en and id."""
    place = tmp_path_factory.mktemp("languages")
    rows = [f"text number {k},{['en', 'de', 'id'][k % 3]}" for k in range(30)]
    (place / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    data = ["data=table", f"data.path={place / 'train.csv'}", "head=sequence"]
    train(tiny_config(*data, "trainer.max_steps=1"), place / "run")
    return load_run(place / "run", CPU)


def write_pairs(file: Path, ids: list[Any] | None, column: str = "id") -> Path:
    """A file of pairs to predict, by its suffix; `ids` in `column`."""
    rows = [{"prompt": text, "response_a": "far", "response_b": "near " * k} for k, text in enumerate(TEXTS)]
    rows = rows if ids is None else [{column: name, **row} for name, row in zip(ids, rows, strict=True)]
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return file


def read(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))


# ------------------------------------------------------------------------------------------------------------- ids

UUIDS = [uuid.UUID(int=k) for k in range(5)]


@pytest.mark.parametrize(
    ("name", "column", "ids", "written"),
    [
        ("a.csv", "Id", [7, 5, 3, 1, 2], ["7", "5", "3", "1", "2"]),
        ("a.csv", "ID", ["x,1", 'x"2', "x\n3", "x\r4", "ü5"], ["x,1", 'x"2', "x\n3", "x\r4", "ü5"]),
        ("a.jsonl", "id", [1, "a", 2.5, True, 10**20], ["1", "a", "2.5", "true", str(10**20)]),
        ("a.parquet", "id", [9, 8, 7, 6, 5], ["9", "8", "7", "6", "5"]),
        ("a.parquet", "Id", [f"{one.hex}" for one in UUIDS], [one.hex for one in UUIDS]),
        ("a.parquet", "id", UUIDS, [str(one) for one in UUIDS]),
    ],
    ids=["numbers", "texts", "any JSON", "parquet numbers", "parquet texts", "parquet uuids"],
)
def test_the_files_own_ids_are_written_under_its_own_header(
    trained: Trained, tmp_path: Path, name: str, column: str, ids: list[Any], written: list[str]
) -> None:
    predict_file(trained, write_pairs(tmp_path / name, ids, column), tmp_path / "out.csv")
    header, *rows = read(tmp_path / "out.csv")
    assert header == [column, "model_a", "model_b", "tie"]
    assert [row[0] for row in rows] == written


def test_another_column_of_ids_is_named(trained: Trained, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "a.csv", ["a", "b", "c", "d", "e"], "row key")
    predict_file(trained, source, tmp_path / "out.csv", form=Form(id_column="row key"))
    assert [row[0] for row in read(tmp_path / "out.csv")] == ["row key", "a", "b", "c", "d", "e"]
    with pytest.raises(
        DataError, match=r"no column 'key' \(--id-column key\); give --id-column one of row key, prompt"
    ):
        predict_file(trained, source, tmp_path / "out.csv", form=Form(id_column="key"))
    with pytest.raises(DataError, match="'prompt' is a text that the run reads"):
        predict_file(trained, source, tmp_path / "out.csv", form=Form(id_column="prompt"))


def test_rows_without_ids_are_numbered_and_that_is_printed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_pairs(tmp_path / "a.csv", None), tmp_path / "out.csv"
    assert main.main(["predict", str(folder / "run"), str(source), "-o", str(target)]) == 0
    assert "no column id, Id or ID, and no --id-column: its rows are numbered from 1" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert [row[0] for row in read(target)] == ["id", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, None, 3, None, 5], r"2 rows \(lines 2, 4\) without a value in 'id'"),
        ([1, 2, 3, float("nan"), 5], r"1 row \(line 4\) without a value in 'id'"),
        (["a", "b", " ", "d", "e"], r"1 row \(line 3\) without a value in 'id'"),
    ],
)
def test_a_row_without_its_id_is_refused(trained: Trained, tmp_path: Path, ids: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        predict_file(trained, write_pairs(tmp_path / "a.jsonl", ids), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_two_columns_of_ids_are_refused_and_equal_ids_are_printed(
    folder: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.csv"
    source.write_text("id,ID,prompt,response_a,response_b\n1,2,p,a,b\n")
    with pytest.raises(DataError, match="'id' and 'ID' could both hold the ids; choose one by --id-column"):
        predict_file(trained, source, tmp_path / "out.csv")
    write_pairs(source, ["a", "b", "a", "c", "a"])
    assert main.main(["predict", str(folder / "run"), str(source), "-o", str(tmp_path / "out.csv")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 rows (lines 2, 4, 6) share their 'id' with another row; each is predicted" in said
    assert [row[0] for row in read(tmp_path / "out.csv")] == ["id", "a", "b", "a", "c", "a"]


def test_a_class_called_id_leaves_the_ids_a_name_of_their_own(languages: Trained, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    for text, header in [("text\na\nb\n", "row_id"), ("ID,text\n7,a\n8,b\n", "ID"), ("id,text\n7,a\n8,b\n", "row_id")]:
        source.write_text(text)
        predict_file(languages, source, tmp_path / "out.csv")
        assert read(tmp_path / "out.csv")[0] == [header, "de", "en", "id"]
    sample = tmp_path / "sample.csv"
    sample.write_text("key,id,en,de\n8,0,0,0\n7,0,0,0\n")
    predict_file(languages, source, tmp_path / "like.csv", form=Form(like=sample))
    plain = {row[0]: row[1:] for row in read(tmp_path / "out.csv")[1:]}
    assert read(tmp_path / "like.csv") == [
        ["key", "id", "en", "de"],
        *([name, plain[name][2], plain[name][1], plain[name][0]] for name in ("8", "7")),
    ]


# ------------------------------------------------------------------------------------------------- the csv itself


def test_lines_end_in_lf_and_every_row_sums_to_1_as_printed(trained: Trained, tmp_path: Path) -> None:
    predict_file(trained, write_pairs(tmp_path / "a.csv", [1, 2, 3, 4, 5]), tmp_path / "out.csv", form=Form(swap=True))
    assert b"\r" not in (tmp_path / "out.csv").read_bytes()
    for row in read(tmp_path / "out.csv")[1:]:
        assert abs(sum(map(float, row[1:])) - 1) < 1e-12


def test_a_cell_with_any_line_end_comes_back_as_it_was() -> None:
    cells = ["a\rb", "c\nd", "e\r\nf", "g,h", 'i"j', ""]
    line = csv_line(cells)
    assert line.endswith('""\n') or line.endswith(",\n")
    assert next(csv.reader(iter(line.splitlines(keepends=True)))) == cells


# --------------------------------------------------------------------------------------------- a sample submission


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "test.csv", [1, 2, 3, 4, 5])


def like(tmp_path: Path, text: str) -> Form:
    (tmp_path / "sample.csv").write_text(text)
    return Form(like=tmp_path / "sample.csv")


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("id,model_a,model_b,tie", [0, 1, 2]),
        ("Id,tie,model_b,model_a", [2, 1, 0]),
        ("id,winner_model_a,winner_model_b,winner_tie", [0, 1, 2]),
        ("winner_tie,id,Model A,model-b", [2, None, 0, 1]),
    ],
)
def test_columns_order_and_ids_are_the_samples(
    trained: Trained, five: Path, tmp_path: Path, header: str, order: list[int | None]
) -> None:
    predict_file(trained, five, tmp_path / "plain.csv")
    plain = {row[0]: row[1:] for row in read(tmp_path / "plain.csv")[1:]}
    order = [None, *order] if len(order) == 3 else order
    cells = {name: ",".join(name if place is None else "0" for place in order) for name in "12345"}
    text = "\n".join([header, *(cells[name] for name in "35142")]) + "\n"
    predict_file(trained, five, tmp_path / "out.csv", form=like(tmp_path, text))
    found_header, *rows = read(tmp_path / "out.csv")
    assert ",".join(found_header) == header
    assert rows == [[name if place is None else plain[name][place] for place in order] for name in "35142"]


def test_a_samples_ids_may_be_written_as_floats(trained: Trained, five: Path, tmp_path: Path) -> None:
    text = "id,model_a,model_b,tie\n" + "".join(f"{k}.0,0,0,0\n" for k in (5, 4, 3, 2, 1))
    predict_file(trained, five, tmp_path / "out.csv", form=like(tmp_path, text))
    assert [row[0] for row in read(tmp_path / "out.csv")[1:]] == ["5.0", "4.0", "3.0", "2.0", "1.0"]


ROWS = "".join(f"{k},0,0,0\n" for k in range(1, 6))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("id,model_a,model_b,tie\n1,0,0,0\n2,0,0,0\n3,0,0,0\n", DataError, r"2 ids \(4, 5\) are not in --like="),
        ("id,model_a,model_b,tie\n" + ROWS + "6,0,0,0\n", DataError, r"1 id \(6\) is not in input="),
        ("id,model_a,model_b,tie\n" + ROWS + "5,0,0,0\n", DataError, r"1 id \(5\) is there more than once"),
        (
            "id,model_a,model_b,none\n" + ROWS,
            ConfigError,
            "no class for its column none and no column for the class tie",
        ),
        ("id,model_a,model_b,tie,x\n" + ROWS.replace("\n", ",0\n"), ConfigError, "no class for its column x"),
        ("id,winner\n1,a\n2,a\n3,a\n4,a\n5,a\n", ConfigError, "'winner' holds one answer a row, .* give --labels"),
        ("id\n1\n", DataError, "it needs rows with an id and a column for each answer"),
        ("", DataError, "the file is empty"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_in_one_line(
    trained: Trained, five: Path, tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        predict_file(trained, five, tmp_path / "out.csv", form=like(tmp_path, text))
    assert "\n" not in str(raised.value) and not (tmp_path / "out.csv").exists()


def test_a_sample_of_labels_takes_labels(trained: Trained, five: Path, tmp_path: Path) -> None:
    form = like(tmp_path, "id,winner\n5,a\n4,a\n3,a\n2,a\n1,a\n")
    predict_file(trained, five, tmp_path / "out.csv", form=Form(labels=True, like=form.like))
    header, *rows = read(tmp_path / "out.csv")
    assert header == ["id", "winner"] and [row[0] for row in rows] == list("54321")
    assert {row[1] for row in rows} <= {"model_a", "model_b", "tie"}
    several = like(tmp_path, "id,model_a,model_b,tie\n" + ROWS)
    with pytest.raises(ConfigError, match="leave --labels out"):
        predict_file(trained, five, tmp_path / "out.csv", form=Form(labels=True, like=several.like))


# ----------------------------------------------------------------------------- what is read is checked and kept


def test_the_whole_file_is_checked_before_the_first_row_is_predicted(languages: Trained, tmp_path: Path) -> None:
    rows = [{"text": None if k == 2100 else f"text {k}"} for k in range(2200)]
    (tmp_path / "late.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predicted: list[int] = []
    with pytest.raises(DataError, match=r"late\.jsonl: 1 row \(line 2101\) without a value in 'text'"):
        predict_file(languages, tmp_path / "late.jsonl", tmp_path / "out.csv", done=predicted.append)
    assert predicted == [] and [file.name for file in tmp_path.iterdir()] == ["late.jsonl"]


@pytest.mark.parametrize("way", ["itself", "a symlink", "a hard link"])
def test_nothing_is_written_onto_what_is_read(trained: Trained, five: Path, tmp_path: Path, way: str) -> None:
    sample = like(tmp_path, "id,model_a,model_b,tie\n" + ROWS)
    for file in (five, tmp_path / "sample.csv"):
        before, target = file.read_bytes(), tmp_path / f"{file.stem}-out.csv"
        if way == "itself":
            target = tmp_path / "." / file.name
        elif way == "a symlink":
            target.symlink_to(file)
        else:
            os.link(file, target)
        with pytest.raises(DiskError, match=r"is the same file as .*\.csv, which is read; choose another place by -o"):
            predict_file(trained, five, target, form=sample)
        assert file.read_bytes() == before


def test_nothing_is_written_onto_the_run(folder: Path, five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("predictions.parquet", "result.json", "adapter/head.safetensors"):
        target = folder / "run" / name
        before = target.read_bytes()
        assert main.main(["predict", str(folder / "run"), str(five), "-o", str(target)]) == 2
        assert "which is read; choose another place by -o" in capsys.readouterr().err
        assert target.read_bytes() == before


@pytest.fixture
def written(folder: Path) -> Iterator[list[str]]:
    """The files of the run folder that are opened to be written, made, removed or renamed while the test runs."""
    touched: list[str] = []
    watching = [True]
    run = str(folder / "run")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching[0] or event not in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime"):
            return
        reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not reads and str(arguments[0]).startswith(run):
            touched.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)  # there is no way to take it out again
    yield touched
    watching[0] = False


def test_a_run_folder_is_only_read(folder: Path, five: Path, tmp_path: Path, written: list[str]) -> None:
    def inventory() -> dict[str, tuple[int, int]]:
        files = sorted((folder / "run").rglob("*"))
        return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in [folder / "run", *files]}

    before = inventory()
    assert main.main(["predict", str(folder / "run"), str(five), "-o", str(tmp_path / "out.csv")]) == 0
    assert inventory() == before and written == []


# ---------------------------------------------------------------------------------------- a backbone that has moved


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, Path]:
    """A run whose backbone has moved since, and where it is now."""
    place = tmp_path_factory.mktemp("moved")
    save_base(tiny_config(), place / "before")
    config = tiny_config(f"model.path={place / 'before'}", "trainer.max_steps=1")
    train(config, place / "run")
    (place / "before").rename(place / "now")
    return place / "run", place / "now"


def test_a_backbone_that_has_moved_is_named(moved: tuple[Path, Path]) -> None:
    run, now = moved
    with pytest.raises(ModelError, match=r"no such folder; .*if it has moved, give --model-path FOLDER"):
        load_run(run, CPU)
    found = load(open_run(run), Place(CPU, model_path=now))
    assert found.config.model.path == str(now)


def test_another_backbone_in_its_place_is_refused(moved: tuple[Path, Path], tmp_path: Path) -> None:
    save_base(tiny_config("model.init_seed=5"), tmp_path / "other")
    with pytest.raises(CheckpointError, match="was trained over another backbone than"):
        load(open_run(moved[0]), Place(CPU, model_path=tmp_path / "other"))


def test_a_run_without_a_backbone_elsewhere_takes_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a backbone with random weights; leave it out"):
        load(open_run(folder / "run"), Place(CPU, model_path=tmp_path))
    assert yaml.safe_load((folder / "run" / "config.yaml").read_text())["model"]["path"] is None


def test_an_export_stands_on_the_backbone_where_it_is_now(moved: tuple[Path, Path], tmp_path: Path) -> None:
    run, now = moved
    write_export(run, tmp_path, load(open_run(run), Place(CPU, model_path=now), by_peft=True), Options("an export"))
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(now)
