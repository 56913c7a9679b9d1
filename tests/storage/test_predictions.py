"""predictions.parquet: one file of the package knows its columns."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import danube_sweep
from danube_sweep.config.schema import Target
from danube_sweep.data.records import group_codes
from danube_sweep.errors import DiskError
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import Answered

IDS = ["7", "a:0"]
LOSSES = np.array([0.25, 0.5], dtype=np.float32)
ONES = np.ones(2, dtype=np.float32)


def written(folder: Path, target: Target, labels: list[list[float]], answers: list[list[float]] | None) -> "pa.Table":
    answers_NA = None if answers is None else np.array(answers, dtype=np.float32)
    answered = Answered(IDS, LOSSES, np.array(labels, dtype=np.float32), ONES * 3, answers_NA)
    predictions.write(folder / "predictions.parquet", target, ["no", "=yes"], answered)
    return predictions.read(folder / "predictions.parquet")


@pytest.mark.parametrize(
    ("target", "labels", "answers", "columns"),
    [
        (Target.one, [[0, 1], [1, 0]], [[0.25, 0.75], [0.5, 0.5]], {"label": ["=yes", "no"]}),
        (Target.words, [[1], [0]], [[0.25, 0.75], [0.5, 0.5]], {"label": ["=yes", "no"]}),
        (Target.many, [[1, 1], [0, 1]], [[0.25, 0.75], [0.5, 0.5]], {"label_no": [1, 0], "label_=yes": [1, 1]}),
        (Target.number, [[2], [3]], [[2.5], [3.5]], {"label": [2, 3], "prediction": [2.5, 3.5]}),
        (Target.nothing, [[], []], None, {"weight": [3, 3]}),
    ],
)
def test_each_target_has_its_columns(
    tmp_path: Path, target: Target, labels: list[list[float]], answers: list[list[float]] | None, columns: object
) -> None:
    table = written(tmp_path, target, labels, answers).to_pydict()
    assert (table.pop("id"), table.pop("loss")) == (IDS, [0.25, 0.5])
    if target not in (Target.number, Target.nothing):
        assert (table.pop("probability_no"), table.pop("probability_=yes")) == ([0.25, 0.5], [0.75, 0.5])
    assert table == columns


def test_a_group_is_a_code_that_examples_of_one_text_share(tmp_path: Path) -> None:
    codes = group_codes(["a prompt", "another"])
    answered = Answered(IDS, LOSSES, np.zeros((2, 0)), ONES, None, codes[[0, 0]])
    predictions.write(tmp_path / "predictions.parquet", Target.nothing, [], answered)
    table = predictions.read(tmp_path / "predictions.parquet")
    assert table.column_names == ["id", "group", "loss", "weight"]
    assert table["group"].to_pylist() == [codes[0]] * 2 and codes[0] != codes[1]
    assert group_codes(["another", "a prompt"]).tolist() == codes[::-1].tolist()


def test_a_classifier_s_answers_come_back(tmp_path: Path) -> None:
    table = written(tmp_path, Target.one, [[0, 1], [1, 0]], [[0.25, 0.75], [0.5, 0.5]])
    found = predictions.classified(table)
    assert found is not None and found.classes == ["no", "=yes"]
    assert found.labels_N.tolist() == [1, 0]
    assert found.probabilities_NC.tolist() == [[0.25, 0.75], [0.5, 0.5]] and found.probabilities_NC.dtype == np.float64
    assert list(filter(predictions.is_truth, table.column_names)) == ["id", "label"]
    assert list(filter(predictions.is_answer, table.column_names)) == ["probability_no", "probability_=yes"]


def test_only_a_classifier_of_one_class_a_row_has_confusions(tmp_path: Path) -> None:
    several = written(tmp_path, Target.many, [[1, 1], [0, 1]], [[0.25, 0.75], [0.5, 0.5]])
    number = written(tmp_path, Target.number, [[2], [3]], [[2.5], [3.5]])
    text = written(tmp_path, Target.nothing, [[], []], None)
    assert [predictions.classified(table) for table in (several, number, text)] == [None, None, None]


def test_a_label_that_is_no_class_is_damage(tmp_path: Path) -> None:
    table = pa.table({"label": ["no", "else"], "probability_no": [1.0, 1.0]})
    with pytest.raises(predictions.DAMAGED, match="no class"):
        predictions.classified(table)


def test_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    written(tmp_path, Target.number, [[2], [3]], [[2.5], [3.5]])
    table = predictions.read(tmp_path / "predictions.parquet", lambda name: name in ("id", "loss", "weight"))
    assert table.column_names == ["id", "loss"]


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_a_file_that_is_missing_or_damaged_raises_what_readers_expect(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "predictions.parquet").write_bytes(content)
    with pytest.raises(predictions.DAMAGED):
        predictions.read(tmp_path / "predictions.parquet")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"predictions\.parquet cannot be written: .*; free some space"):
        written(tmp_path / "nowhere", Target.nothing, [[], []], None)


def test_the_rows_have_the_types_that_the_trial_computed(tmp_path: Path) -> None:
    written(tmp_path, Target.one, [[0, 1], [1, 0]], [[0.25, 0.75], [0.5, 0.5]])
    schema = parquet.read_schema(tmp_path / "predictions.parquet")
    assert [str(kind) for kind in schema.types] == ["string", "float", "string", "float", "float"]


def test_reading_needs_no_torch() -> None:
    script = "import sys, danube_sweep.storage.predictions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_other_file_names_the_columns_of_answers() -> None:
    package = Path(danube_sweep.__file__).parent
    found = {
        file.name
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("probability_", "label_")
    }
    assert found == {"predictions.py"}
