"""TensorBoard's events of a run, as TensorBoard's own reader has them."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import TINY, compose
from pyarrow import parquet
from runs import StopAfter, metrics, train
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.metadata import PLUGIN_NAME, SESSION_END_INFO_TAG, SESSION_START_INFO_TAG

from danube_sweep.cli import main
from danube_sweep.config.schema import TensorboardTracking
from danube_sweep.config.stored import load_config
from danube_sweep.errors import ConfigError, Interrupted
from danube_sweep.storage.ownership import Kind, is_our_name
from danube_sweep.storage.predictions import read
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.tracking import open_tracker
from danube_sweep.training.run import publish_result

SHORT = [*TINY, "data.rows=40", "trainer.max_steps=4", "trainer.validate_every=2", "tracking=tensorboard"]


def read_back(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"))
    return events.Reload()


def text(events: EventAccumulator, tag: str) -> str:
    return str(events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode())


def hparams(events: EventAccumulator, tag: str) -> plugin_data_pb2.HParamsPluginData:
    content = events.summary_metadata[tag].plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after 3 steps, its checkpoint at 3, and went on."""
    folder = tmp_path_factory.mktemp("tensorboard") / "run"
    with pytest.raises(Interrupted):
        train(compose(SHORT), folder, stop=StopAfter(3))
    train(load_config(folder / "config.yaml"), folder)
    return folder


def test_scalars_are_the_rows_of_metrics_csv(trained: Path) -> None:
    events = read_back(trained)
    assert is_our_name("tensorboard", Kind.run)
    for part, name in (("train", "loss"), ("validation", "log_loss")):
        rows = {int(row["step"]): float(row[name]) for row in metrics(trained, part)}
        logged = [(one.step, one.value) for one in events.Scalars(f"{part}/{name}")]
        steps = [step for step, _ in logged]  # of training, the last step of what was written at a time
        assert steps == sorted({*steps}) and {2, 4} <= {*steps} <= {*rows}
        assert logged == [(step, pytest.approx(rows[step], rel=1e-6)) for step in steps]
    assert {*rows} == {2, 4}


def test_the_config_is_there_as_text_and_as_hyperparameters(trained: Path) -> None:
    events = read_back(trained)
    lines = text(events, "config").splitlines()
    assert all(line.startswith("    ") for line in lines)
    shown = yaml.safe_load("\n".join(lines))
    assert shown == yaml.safe_load((trained / "config.yaml").read_text())
    start = hparams(events, SESSION_START_INFO_TAG).session_start_info.hparams
    assert start["lora.rank"].number_value == shown["lora"]["rank"]
    assert start["optimizer.lr"].number_value == shown["optimizer"]["lr"]
    assert start["head.kind"].string_value == shown["head"]["kind"]
    assert events.summary_metadata[SESSION_START_INFO_TAG].plugin_data.plugin_name == PLUGIN_NAME


def test_the_end_has_state_best_metrics_and_the_confusion_matrix(trained: Path) -> None:
    events, result = read_back(trained), json.loads((trained / "result.json").read_text())
    assert hparams(events, SESSION_END_INFO_TAG).session_end_info.status == api_pb2.STATUS_SUCCESS
    assert text(events, "result/state") == "finished"
    (best,) = events.Scalars("result/validation/log_loss")
    assert best.value == pytest.approx(result["validation"]["log_loss"], rel=1e-6)

    table = read(trained / "predictions.parquet", lambda name: True).to_pylist()
    classes = [name.removeprefix("probability_") for name in table[0] if name.startswith("probability_")]
    said = [max(classes, key=lambda name: row[f"probability_{name}"]) for row in table]
    expected = confusion_matrix([row["label"] for row in table], said, labels=classes).tolist()
    head, _, *rows = text(events, "validation/confusion_matrix").splitlines()
    assert cells(head)[1:] == classes
    assert [cells(row)[0].strip("*") for row in rows] == classes
    assert [[int(cell) for cell in cells(row)[1:]] for row in rows] == expected


def test_the_end_of_a_trial_that_was_paused_is_at_its_last_step(trained: Path, tmp_path: Path) -> None:
    for name in ("result.json", "predictions.parquet"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    publish_result(load_config(trained / "config.yaml"), RunFolder(tmp_path))
    events = read_back(tmp_path)
    (best,) = events.Scalars("result/validation/log_loss")
    assert best.step == json.loads((trained / "result.json").read_text())["steps"] == 4
    assert events.Tensors("validation/confusion_matrix/text_summary")[-1].step == 4


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


class Opened:
    def __init__(self, folder: Path, resolved: dict[str, Any] | None = None) -> None:
        self.folder, self.said = folder, []  # type: tuple[Path, list[str]]
        folder.mkdir(exist_ok=True)
        self.tracker = open_tracker(
            TensorboardTracking(),
            run_id="x",
            run_name="x",
            folder=folder,
            resolved=resolved or {},
            say=self.said.append,
        )


def test_a_failed_run_says_so_and_a_secret_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hush-hush-hush")
    opened = Opened(tmp_path / "run", {"data": {"path": ["x?token=hush-hush-hush"]}})
    opened.tracker.summary({"state": "failed", "error": "GET x?token=hush-hush-hush"})
    opened.tracker.finish(1)
    opened.tracker.log(1, {"train/loss": 1.0})  # after the end: nothing
    events = read_back(opened.folder)
    assert SESSION_END_INFO_TAG not in events.summary_metadata
    assert (text(events, "result/error"), events.Tags()["scalars"]) == ("GET x?token=<MY_SECRET_TOKEN>", [])
    assert not [file for file in opened.folder.rglob("events*") if b"hush-hush" in file.read_bytes()]
    assert opened.said == []


def test_class_names_cannot_break_the_table_and_too_many_are_told(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "run")
    columns = {"id": ["1"], "loss": [0.1], "label": ["a|b\nc"], "probability_a|b\nc": [0.9], "probability_d": [0.1]}
    parquet.write_table(pa.table(columns), tmp_path / "few.parquet")
    many = {f"probability_{number}": [0.01] for number in range(101)}
    parquet.write_table(pa.table({"id": ["1"], "loss": [0.1], "label": ["0"], **many}), tmp_path / "many.parquet")
    opened.tracker.publish(tmp_path / "few.parquet", None)
    opened.tracker.publish(tmp_path / "many.parquet", None)
    opened.tracker.finish(0)
    table = text(read_back(opened.folder), "validation/confusion_matrix").splitlines()
    assert table == [
        "| actual \\ predicted | a\\|b c | d |",
        "| --- | ---: | ---: |",
        "| **a\\|b c** | 1 | 0 |",
        "| **d** | 0 | 0 |",
    ]
    assert opened.said == ["no confusion matrix for TensorBoard: 101 classes, it takes 100"]


def test_a_folder_that_cannot_be_written_is_told_once_and_the_trial_goes_on(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "run")
    (opened.folder / "tensorboard").write_text("a file is in the way")
    for step in (1, 2):
        opened.tracker.log(step, {"train/loss": 1.0})
    opened.tracker.finish(0)
    (said,) = opened.said
    assert said.startswith("TensorBoard's events failed (") and said.endswith(f"into {opened.folder / 'tensorboard'}")


def test_without_the_package_the_trial_is_refused_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(SHORT)  # with Hydra's plugins still on the path
    (tmp_path / "tensorboard").mkdir()  # a run's folder, which Python would import as a package without files
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"needs tensorboard: pip install 'danube_sweep\[tensorboard\]'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("words", [SHORT, ["-m", *SHORT, "seed=0,1"]])
def test_without_the_package_a_run_and_a_sweep_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main.main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "tracking=tensorboard needs tensorboard: pip install 'danube_sweep[tensorboard]'" in said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
