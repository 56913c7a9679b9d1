"""Names that a spreadsheet or a terminal would run: harmless in every csv, and the same names when they are read."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import tiny_config
from hypothesis import given
from hypothesis import strategies as st
from runs import CPU, train

from danube_sweep.cli import main
from danube_sweep.config.neutral_text import FORMULA, neutral, neutral_cell, plain_cell
from danube_sweep.config.schema import TableColumns, Target
from danube_sweep.config.stored import load_config
from danube_sweep.data.table_columns import load_table
from danube_sweep.inference.predict import Form, Trained, load_run, predict_file
from danube_sweep.results.oof.write_oof import write_predictions
from danube_sweep.storage import predictions
from danube_sweep.storage.decision_file import write_decisions

CLASSES = sorted(["=cmd|'/C calc'!A0", "@sum", "-b", "'tis", "red\x1b[31m\u202e", "C:\\x41", "plain"])
TEXT, LABEL, ID = "=text", "+label", "@id\x07"


def harmless(cell: str) -> bool:
    number = cell.replace(".", "").replace("e", "").replace("-", "").isdecimal()
    return cell.isprintable() and (number or not cell.startswith(FORMULA))


@given(st.text(st.sampled_from("='+-@\\x1bu0a\t\n\x1b\x00\u202e \uff1dz5.é\U0001f600"), max_size=9) | st.text())
def test_any_text_is_harmless_in_a_cell_and_comes_back(text: str) -> None:
    cell = neutral_cell(text)
    assert plain_cell(cell) == text
    assert neutral(cell) == cell and not set(cell) & set("\x00\t\r\n\x1b")
    assert not cell.startswith(FORMULA) or float(cell) is not None


@pytest.mark.parametrize("text", ["-1", "+1.5e-3", "-.5", "plain", "it's", "'tis", "C:\\new", "a b", "東\u3000京"])
def test_numbers_and_everyday_texts_stay_as_they_are(text: str) -> None:
    assert neutral_cell(text) == text == plain_cell(text)


@pytest.mark.parametrize("cell", ["C:\\x41", "'plain", "\\u0041", "'-5", "''"])
def test_what_no_csv_of_ours_would_hold_is_read_as_it_stands(cell: str) -> None:
    assert plain_cell(cell) == cell


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose columns and classes are hostile, and rows to predict."""
    place = tmp_path_factory.mktemp("hostile")
    with (place / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([ID, TEXT, LABEL])
        writer.writerows([["=1+1" if k == 0 else f"r{k}", f"text {k}", CLASSES[k % 7]] for k in range(35)])
    words = [f"data.text_column='{TEXT}'", f"data.label_column='{LABEL}'", f"data.id_column='{ID}'"]
    words += ["data=table", f"data.path={place / 'rows.csv'}", "head=sequence", "trainer.max_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DANUBE_SWEEP_CACHE", str(place / "cache"))
        train(tiny_config(*words), place / "run")
        yield place


@pytest.fixture(scope="module")
def trained(place: Path) -> Trained:
    return load_run(place / "run", CPU)


def cells(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_predicted_probabilities_are_harmless_and_read_back_by_the_classes_own_names(
    place: Path, trained: Trained
) -> None:
    out = place / "out.csv"
    predict_file(trained, place / "rows.csv", out)
    written = cells(out)
    assert all(harmless(cell) for cell in [*written[0], *written[5]])
    assert [plain_cell(name) for name in written[0]] == [ID, *CLASSES]
    assert written[1][0] == "=1+1"  # an id stays as it is in the input
    columns = TableColumns(text_column=ID, soft_label_columns=CLASSES)
    again = load_table(out, columns, Target.one, classes=None)
    assert again.classes == CLASSES and len(again.records) == 35


def test_predicted_labels_are_harmless_and_are_the_same_classes_when_they_are_read(
    place: Path, trained: Trained
) -> None:
    out = place / "labels.csv"
    predict_file(trained, place / "rows.csv", out, form=Form(labels=True))
    written = cells(out)
    assert all(harmless(row[1]) for row in written)
    again = load_table(out, TableColumns(text_column=ID, label_column=LABEL), Target.one, classes=CLASSES)
    places = [CLASSES.index(plain_cell(row[1])) for row in written[1:]]
    assert [record.label.index(1.0) for record in again.records if record.label] == places


@pytest.mark.parametrize("spell", [str, neutral_cell])
def test_a_submission_has_its_samples_own_spelling(place: Path, trained: Trained, spell: type[str]) -> None:
    header, ids = [spell(name) for name in (ID, *CLASSES)], ["=1+1", *(f"r{k}" for k in range(34, 0, -1))]
    sample = place / "sample.csv"
    with sample.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *([name] + ["0"] * 7 for name in ids)])
    predict_file(trained, place / "rows.csv", place / "submission.csv", form=Form(like=sample))
    written = cells(place / "submission.csv")
    assert written[0] == header and [row[0] for row in written[1:]] == ids
    predict_file(trained, place / "rows.csv", place / "plain.csv")
    own = {row[0]: row[1:] for row in cells(place / "plain.csv")}
    assert all(row[1:] == own[row[0]] for row in written[1:])


def test_a_submission_of_labels_names_the_classes_as_they_are(place: Path, trained: Trained) -> None:
    sample = place / "one.csv"
    with sample.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([[ID, LABEL], ["=1+1", ""], *([f"r{k}", ""] for k in range(1, 35))])
    predict_file(trained, place / "rows.csv", place / "named.csv", form=Form(labels=True, like=sample))
    written = cells(place / "named.csv")
    assert written[0] == [ID, LABEL] and {row[1] for row in written[1:]} <= set(CLASSES)


def test_out_of_fold_predictions_are_harmless_and_read_back(place: Path) -> None:
    found = predictions.read(place / "run" / "predictions.parquet")
    write_predictions(found, place / "oof.csv")
    written = cells(place / "oof.csv")
    assert all(harmless(cell) for row in written for cell in row[1:])
    assert {plain_cell(name) for name in written[0]} > {f"probability_{name}" for name in CLASSES}
    label = written[0].index("label")
    assert [plain_cell(row[label]) for row in written[1:]] == found["label"].to_pylist()


def test_a_run_over_names_that_resemble_secrets_is_resumed_predicts_and_decides(tmp_path: Path) -> None:
    classes = ["Basic Industries", "Basic Materials", "Password: forgotten"]
    file, run = tmp_path / "sk_reviews_train_2024.csv", tmp_path / "sk-run-2024-over-reviews"
    rows = "".join(f"text {k},{classes[k % 3]}\n" for k in range(30))
    file.write_text(f"sk-text-2023-longname-x,label\n{rows}", encoding="utf-8")
    words = ["data=table", f"data.path={file}", "head=sequence", "trainer.max_steps=1"]
    words += [f"data.classes=[{','.join(classes)}]", "data.text_column=sk-text-2023-longname-x"]
    config = tiny_config(*words)
    train(config, run)
    assert load_config(run / "config.yaml") == config
    assert "Basic <" not in (run / "log.txt").read_text()
    assert main.main(["resume", str(run)]) == 0
    numbers = {"kind": "biases", "numbers": [0.0, 0.0, 99.0]}
    write_decisions(run, {"metric": "macro_f1", "classes": classes, "rule": numbers, "worth": {}, "said": "0.1"})
    out = tmp_path / "out.csv"
    assert main.main(["predict", str(run), str(file), "-o", str(out), "--labels"]) == 0
    assert {row[-1] for row in cells(out)[1:]} == {"Password: forgotten"}
