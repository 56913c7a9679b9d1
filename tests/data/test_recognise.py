"""Which kind of data a file is: the real files by a table, and small ones for each sign in docs/data.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import COMPOSER, compose

from danube_sweep.data.recognise.guess import Given
from danube_sweep.data.recognise.recognise_file import recognise
from danube_sweep.errors import ConfigError, DataError
from danube_sweep.sweeping.starting_point import starting_point

DATA = Path(os.environ.get("DANUBE_SWEEP_DATA", ""))
CASES = DATA.parent / "cases"

TABLE = "data.text_column=text data.label_column=label"
WORDS = "data=tokens head=token data.tokens_column=tokens data.labels_column=labels data.id_column=id"
PAIRS = (
    "data=pairs head=preference data.prompt_column=prompt data.a_column=response_a data.b_column=response_b "
    "data.label_column=winner data.a_label=model_a data.b_label=model_b data.id_column=id data.max_length=64"
)
TEXT = "data=text head=lm data.text_column=text"
TO_PREDICT = "no winner (winner_model_a, winner_model_b and winner_tie, or winner); for a file to predict give"

FILES = {
    "arena_human.csv": "data=arena head=preference data.max_length=1024",
    "arena_kaggle/train.csv": "data=arena head=preference data.max_length=1024",
    "banking77_train.csv": f"data=table head=sequence {TABLE} data.id_column=id data.max_length=128",
    "banking77_test.csv": f"data=table head=sequence {TABLE} data.id_column=id data.max_length=128",
    "clinc150_train.csv": f"data=table head=sequence {TABLE} data.id_column=id data.max_length=64",
    "clinc150_test.csv": f"data=table head=sequence {TABLE} data.id_column=id data.max_length=64",
    "score_1_to_10.csv": f"data=table head=ordinal {TABLE} data.id_column=id data.max_length=1024",
    "pii.jsonl": f"{WORDS} data.max_length=192",
    "wnut17_train.jsonl": f"{WORDS} data.max_length=128",
    "wnut17_dev.jsonl": f"{WORDS} data.max_length=192",
    "wnut17_test.jsonl": f"{WORDS} data.max_length=256",
    "lm_text.jsonl.gz": TEXT,
    "cases/arena.csv": "data=arena head=preference data.max_length=96",
    "cases/arena_repr.csv": "data=arena head=preference data.max_length=96",
    "cases/lang.csv": f"data=table head=sequence {TABLE} data.max_length=64",
    "cases/mixed.csv": f"data=table head=sequence {TABLE} data.max_length=64",
    "cases/nan.jsonl": f"data=table head=sequence {TABLE} data.max_length=64",
    "cases/wsdm.parquet": PAIRS,
    "cases/lang_test.csv": TEXT,
}
"""File -> the overrides that it is recognised as."""
REFUSED = {
    "arena_human.sources.csv": "no column holds texts (it has 'id', 'source', 'label_kind')",
    "arena_kaggle/test.csv": TO_PREDICT,
    "arena_kaggle/sample_submission.csv": "no column holds texts",
    "arena_kaggle/solution.csv": "no column holds texts",
    "cases/arena_testId.csv": TO_PREDICT,
    "cases/wsdm_test.parquet": TO_PREDICT,
    "cases/semi.csv": "line 1: separated by semicolons: 'text;label'",
}
"""File -> why it is none."""


def real(name: str) -> Path:
    file = CASES / name.removeprefix("cases/") if name.startswith("cases/") else DATA / name
    if not DATA.name or not file.is_file():
        pytest.skip("needs the real data: DANUBE_SWEEP_DATA")
    return file


@pytest.mark.parametrize(("name", "words"), FILES.items(), ids=list(FILES))
def test_a_real_file_is_recognised_and_its_command_can_be_planned(name: str, words: str) -> None:
    file = real(name)
    found = recognise(file)
    assert [word for word in found.overrides if word != f"data.path={file}"] == words.split()
    assert all(guess.reason for guess in found.guesses)
    start = starting_point(found, composer=COMPOSER)
    assert start.plan.fit.fits and start.plan.epoch_s is not None
    assert compose(start.overrides) == start.config


def test_a_row_that_cannot_be_read_is_refused_by_the_plan() -> None:
    found = recognise(real("cases/late_null.jsonl"))
    assert found.overrides[2] == "head=lm"
    with pytest.raises(DataError, match=r"1 row \(line 2101\) without a value in 'text'"):
        starting_point(found, composer=COMPOSER)


@pytest.mark.parametrize(("name", "said"), REFUSED.items(), ids=list(REFUSED))
def test_a_real_file_that_is_none_is_refused_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        recognise(real(name))
    assert said in str(caught.value)


def test_no_real_file_is_left_out() -> None:
    files = {str(path.relative_to(DATA)) for path in real("arena_human.csv").parent.rglob("*") if path.is_file()}
    files |= {f"cases/{path.name}" for path in CASES.iterdir()}
    assert {name for name in files if not name.endswith("README.md")} == {*FILES, *REFUSED, "cases/late_null.jsonl"}


# ------------------------------------------------------------------------------------------------- small files

TOPICS = ["data.text_column=body", "data.label_column=topic"]


def written(folder: Path, rows: list[dict[str, Any]], name: str = "train.jsonl") -> Path:
    file = folder / name
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rows_with(count: int = 24, **columns: Any) -> list[dict[str, Any]]:
    """Rows of one text each and the given columns, whose lists go round."""
    return [
        {"body": f"sentence number {n} about cards", **{name: given[n % len(given)] for name, given in columns.items()}}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            rows_with(topic=["a", "b"]),
            ["data=table", "head=sequence", "data.text_column=body", "data.label_column=topic"],
        ),
        (rows_with(price=[1.5, 2.5, 9.0]), ["head=regression", "data.label_column=price"]),
        (rows_with(stars=[1, 2, 3]), ["head=ordinal", "data.label_column=stars"]),
        (rows_with(label=[1, 2, 3, 4, 5]), ["head=ordinal"]),
        (rows_with(label=[0, 1, 2]), ["head=sequence"]),
        (rows_with(tags=[["a", "b"], []]), ["head=multilabel", "data.label_column=tags"]),
        (rows_with(toxic=[0, 1], obscene=[1, 1]), ["head=multilabel", "data.soft_label_columns=[toxic,obscene]"]),
        (rows_with(yes=[0.25, 1], no=[0.75, 0]), ["head=sequence", "data.soft_label_columns=[yes,no]"]),
        (rows_with(), ["data=text", "head=lm", "data.text_column=body"]),
        (
            rows_with(answer_1=["yes it is"], answer_2=["no it is not"], choice=["1", "2", "both bad"]),
            ["data=pairs", "data.prompt_column=null", "data.a_label='1'", "data.b_label='2'"],
        ),
        (
            rows_with(question=["is it so"], response_a=["yes"], response_b=["no"], label=[0, 1, 2]),
            ["data.prompt_column=question", "data.a_label='0'", "data.b_label='1'", "data.tie_labels=['2']"],
        ),
        (
            rows_with(words=[["my", "card"]], ner_tags=[["O", "B-X"]], trailing_whitespace=[[True, False]]),
            ["data=tokens", "data.labels_column=ner_tags", "data.whitespace_column=trailing_whitespace"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_each_sign_means_its_kind(tmp_path: Path, rows: list[dict[str, Any]], words: list[str]) -> None:
    for name in ("train.jsonl", "train.parquet"):
        found = recognise(written(tmp_path, rows, name))
        assert set(words) <= set(found.overrides), found.overrides
    assert starting_point(found, composer=COMPOSER).plan.epoch_s is not None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (rows_with(a=["x", "y"], b=["p", "q"]), "which column is the label ('a', 'b')? Give data.label_column=COLUMN"),
        (rows_with(chosen=["good one"], rejected=["bad one"]), "write them as response_a and response_b"),
        (rows_with(answer_a=["yes"], answer_b=["no"]), "but no winner; for a file to predict give the training file"),
        (
            rows_with(answer_a=["p"], answer_b=["q"], winner=["x", "y"]),
            "which of the labels 'x', 'y' in 'winner' means A",
        ),
        (rows_with(tokens=[["a", "b"]]), "lists of words in 'tokens' but no list of labels"),
        ([{"n": n, "m": n * 2} for n in range(9)], "no column holds texts (it has 'n', 'm')"),
    ],
)
def test_an_unclear_file_asks_for_the_override_that_settles_it(
    tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        recognise(written(tmp_path, rows))
    assert said in str(caught.value)


def test_overrides_replace_guesses_and_the_rest_follows_them(tmp_path: Path) -> None:
    file = written(tmp_path, rows_with(label=["a", "b"], score=[1.25, 2.5], id=["p"]))
    plain = recognise(file)
    assert "head=sequence" in plain.overrides and "data.id_column=null" in plain.overrides
    asked = recognise(file, ["data.label_column=score", "data.max_rows=9"])
    assert {"head=regression", "data.label_column=score", "data.max_rows=9"} <= set(asked.overrides)
    given = {guess.field for guess in asked.guesses if guess.given}
    assert given == {"data.label_column", "data.max_rows"}
    assert "data=text" in recognise(file, ["data=text"]).overrides
    with pytest.raises(DataError, match=r"data\.label_column=scor: .*no column 'scor'; did you mean 'score'\?"):
        recognise(file, ["data.label_column=scor"])
    with pytest.raises(ConfigError, match="data=hub: init reads a file"):
        recognise(file, ["data=hub"])
    with pytest.raises(ConfigError, match="label: not an override"):
        Given(["label"])


def test_a_test_file_shows_the_label_and_is_scored_or_predicted(tmp_path: Path) -> None:
    rows = rows_with(where=["x", "y"], made=["p", "q"])
    train = written(tmp_path, rows)
    blind = written(tmp_path, [{"body": row["body"], "where": "x"} for row in rows], "blind.jsonl")
    found = recognise(train, test=blind)
    assert "data.label_column=made" in found.overrides
    assert found.to_predict == str(blind)
    whole = recognise(train, ["data.label_column=made"], test=train)
    assert whole.to_predict is None
    assert whole.overrides[-2:] == [f"data.test_path={train}", "trainer.score_test=true"]


@pytest.mark.parametrize(
    ("rows", "given", "lacking"),
    [
        (rows_with(label=["a", "b"]), [], "'body'"),
        (rows_with(label=["a", "b"]), ["data.text_column=body", "data.label_column=label"], "'body'"),
        (
            rows_with(
                **{name: ["p"] for name in ("prompt", "response_a", "response_b")},
                **{"winner_model_a": [1], "winner_model_b": [0], "winner_tie": [0]},
            ),
            [],
            "'prompt', 'response_a', 'response_b'",
        ),
        (rows_with(answer_a=["p"], answer_b=["q"], winner=["a", "b"]), [], "'answer_a', 'answer_b'"),
        (rows_with(tokens=[["a", "b"]], labels=[["O", "O"]]), [], "'tokens'"),
    ],
)
def test_a_test_file_without_the_texts_is_refused_for_every_kind(
    tmp_path: Path, rows: list[dict[str, Any]], given: list[str], lacking: str
) -> None:
    train, test = written(tmp_path, rows), written(tmp_path, [{"foo": 1, "bar": 2}], "test.jsonl")
    with pytest.raises(DataError, match=rf"^--test=.*: no columns? {lacking} \(it has 'foo', 'bar'\); call its"):
        recognise(train, given, test)
    assert recognise(train, given, train).overrides


def test_columns_of_shares_whose_names_are_quoted_are_found_in_the_test_file(tmp_path: Path) -> None:
    file = written(tmp_path, rows_with(**{"very toxic": [0, 1], "rude": [1, 1]}))
    found = recognise(file, test=file)
    assert "data.soft_label_columns=['very toxic',rude]" in found.overrides
    assert found.to_predict is None and "trainer.score_test=true" in found.overrides


def test_the_recogniser_imports_no_torch() -> None:
    script = "import sys, danube_sweep.data.recognise.recognise_file; assert 'torch' not in sys.modules; print('light')"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"light\n"
