"""W&B never ends, delays or gives away a trial."""

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pytest
import torch
import warm
from conftest import compose
from pyarrow import parquet
from wandb_server import KEY, Server

from danube_sweep.cli import main
from danube_sweep.config.schema import NoTracking, Tracking, WandbTracking
from danube_sweep.errors import ConfigError
from danube_sweep.storage.predictions import Classified, classified, read
from danube_sweep.tracking import Tracker, open_tracker, sweep_name
from danube_sweep.tracking.open_tracker import _unreachable
from danube_sweep.tracking.prediction_charts import calibration, confusions
from danube_sweep.tracking.wandb_sending import MOST_CLASSES, MOST_ROWS
from danube_sweep.training.metrics import classification_metrics

ID = "abc12345"


@pytest.fixture(autouse=True)
def own_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SERVICE", "")  # wandb sets it itself; recorded here, it is put back afterwards
    monkeypatch.delenv("WANDB_SERVICE")
    home = tmp_path / "home"
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    _unreachable.clear()
    yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


class Opened:
    def __init__(
        self, config: Tracking, folder: Path, resolved: dict[str, Any] | None = None, run_id: str = ID
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.said = folder, []  # type: tuple[Path, list[str]]
        self.tracker: Tracker = open_tracker(
            config, run_id=run_id, run_name="a run", folder=folder, resolved=resolved or {}, say=self.said.append
        )

    def train(self, predictions: Path | None = None, product: Path | None = None) -> None:
        for step in range(1, 6):
            rising_and_falling = {"validation/accuracy": 1 / (1 + abs(step - 2)), "validation/macro_f1": 0.25}
            losses = {"train/loss": 1 / step, "validation/log_loss": abs(step - 3) + 0.5, "validation/ece": 0.125}
            self.tracker.log(step, {**losses, **rising_and_falling})
        if predictions is not None:
            self.tracker.publish(predictions, product)
        self.tracker.summary({"state": "finished", "train/loss": 0.125})
        self.tracker.finish(0)

    @property
    def runs(self) -> list[str]:
        return sorted(path.parent.name.split("-")[0] for path in self.folder.glob("wandb/*/*.wandb"))

    def read_back(self) -> dict[str, Any]:
        (run,) = self.folder.glob("wandb/offline-run-*")
        return dict(json.loads(warm.run("-m", "wandb", "leet", "inspect", "--summary", "--json", run).stdout))


def write_predictions(folder: Path, *, rows: int, classes: int = 3) -> Path:
    """A classifier's predictions.parquet; with no classes a language model's."""
    random = numpy.random.default_rng(0)
    columns: dict[str, Any] = {"id": [f"row {number}" for number in range(rows)], "loss": random.random(rows)}
    if classes:
        columns["label"] = [f"class {number}" for number in random.integers(classes, size=rows)]
    for number, values in enumerate(random.dirichlet(numpy.ones(classes or 1), size=rows).T[:classes]):
        columns[f"probability_class {number}"] = values
    parquet.write_table(pa.table(columns), folder / "predictions.parquet")
    return folder / "predictions.parquet"


def answers(file: Path) -> Classified:
    found = classified(read(file))
    assert found is not None
    return found


def tables(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """The W&B tables among files, by what stands between their folder and their step."""
    named = {name.split("/")[-1]: content for name, content in files.items() if name.endswith(".table.json")}
    return {name.rsplit("_", 2)[0]: json.loads(content) for name, content in named.items()}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# ------------------------------------------------------------------------------------------------- W&B, offline


def test_an_offline_run_holds_metrics_summary_config_and_id(tmp_path: Path) -> None:
    config = WandbTracking(mode="offline", project="tests", group="g", tags=["quick"])
    opened = Opened(config, tmp_path / "run", {"lora": {"rank": 16}, "targets": ["q_proj"]})
    opened.train()
    run = opened.read_back()
    assert (run["run_id"], run["name"], run["project"], run["tags"]) == (ID, "a run", "tests", ["quick"])
    assert run["config"] == {"trial": {"lora": {"rank": 16}, "targets": ["q_proj"]}}
    assert (run["exit_code"], run["step"]) == (0, 5)
    assert run["summary"]["state"] == "finished"
    assert run["summary"]["train/loss"] == 0.125, "the summary's own value, not the last step's"
    summaries = {"log_loss": {"min": 0.5}, "ece": {"min": 0.125}, "accuracy": {"max": 1}, "macro_f1": {"max": 0.25}}
    assert {name: run["summary"][f"validation/{name}"] for name in summaries} == summaries
    assert opened.said == []


def test_no_secret_of_the_environment_reaches_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hush-hush-hush")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(sys, "argv", ["danube-sweep", "name=hush-hush-hush"])
    opened = Opened(WandbTracking(mode="offline"), tmp_path / "run", {"data": {"path": ["x?token=hush-hush-hush"]}})
    opened.tracker.summary({"error": "GET x?token=hush-hush-hush"})
    opened.train()
    files = [path.read_bytes() for path in opened.folder.rglob("*") if path.is_file()]
    assert opened.read_back()["config"] == {"trial": {"data": {"path": ["x?token=<MY_SECRET_TOKEN>"]}}}
    assert len(files) > 1
    assert not [data for data in files if b"hush-hush" in data or KEY.encode() in data]


@pytest.mark.parametrize(("key", "problem"), [("", "no API key"), ("short-key-1", "40+ characters")])
def test_auto_without_a_usable_key_logs_offline_and_says_how_to_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, problem: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    opened = Opened(WandbTracking(), tmp_path / "run")
    opened.train()
    (said,) = opened.said
    assert opened.runs == ["offline"]
    assert problem in said and "wandb sync " in said and "offline-run" in said and "short-key-1" not in said


@pytest.mark.parametrize("source", ["tracking.mode", "WANDB_MODE"])
def test_asking_for_online_without_a_key_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "WANDB_MODE":
        monkeypatch.setenv("WANDB_MODE", "online")
    ways = "run `wandb login`, set WANDB_API_KEY, or do without by tracking=none"
    with pytest.raises(ConfigError, match=f"{source}=online: there is no API key .*; {ways}"):
        Opened(WandbTracking(mode="online" if source == "tracking.mode" else "auto"), tmp_path / "run")


@pytest.mark.parametrize(("mode", "runs"), [("offline", ["offline"]), ("dryrun", ["offline"]), ("disabled", [])])
def test_wandb_mode_rules_in_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, runs: list[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    opened = Opened(WandbTracking(), tmp_path / "run")
    opened.train()
    assert (opened.runs, opened.said) == (runs, [])


@pytest.mark.parametrize("config", [NoTracking(), WandbTracking(mode="disabled")])
def test_no_tracking_does_nothing(tmp_path: Path, config: Tracking) -> None:
    opened = Opened(config, tmp_path / "run")
    opened.train()
    assert (list(opened.folder.iterdir()), opened.said) == ([], [])


def test_an_unknown_tracking_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Tracking"):
        Opened(Tracking(), tmp_path / "run")


def test_a_project_name_wandb_refuses_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracking: .*a/b"):
        Opened(WandbTracking(mode="offline", project="a/b"), tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tracking.mode=remote", "tracking.mode must be one of auto, online, offline, disabled, got remote"),
        ("tracking.timeout_s=0", "tracking.timeout_s must be above 0, got 0.0; to wait for no server use"),
        ("tracking.tags=['']", "tracking.tags: W&B takes 1 to 64 characters, '' has 0"),
        (f"tracking.tags=[{'x' * 65}]", "tracking.tags: W&B takes 1 to 64 characters, 'x.*' has 65"),
    ],
)
def test_settings_that_wandb_would_refuse_are_refused_before_anything_starts(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([override])


def test_the_agents_run_id_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent789")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    opened = Opened(WandbTracking(mode="offline"), tmp_path / "run")
    opened.train()
    assert opened.read_back()["run_id"] == "agent789"


@pytest.mark.parametrize("mode", ["auto", "online", "offline"])
def test_a_missing_package_is_said_in_auto_and_an_error_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        if mode == "auto":
            opened = Opened(WandbTracking(mode=mode), tmp_path / "run")
            opened.train()
            assert len(opened.said) == 1 and "pip install wandb" in opened.said[0]
        else:
            with pytest.raises(ConfigError, match=f"tracking.mode={mode} .*pip install wandb"):
                Opened(WandbTracking(mode=mode), tmp_path / "run")


def test_trials_of_a_pack_log_side_by_side(tmp_path: Path) -> None:
    pack = [Opened(WandbTracking(mode="offline"), tmp_path / name, run_id=name) for name in ("one", "two")]
    for step in (1, 2):
        for trial in pack:
            trial.tracker.log(step, {"loss": 1.0})
    for trial in pack:
        trial.tracker.finish(0)
    assert [trial.read_back()["step"] for trial in pack] == [2, 2]


def test_a_run_that_is_stopped_on_its_page_stops_alone(tmp_path: Path) -> None:
    pack = [Opened(WandbTracking(mode="offline"), tmp_path / name, run_id=name) for name in ("one", "two")]
    pack[0].tracker._run.settings.stop_fn()  # type: ignore[attr-defined]  # what W&B calls when its server says so
    assert [trial.tracker.stopped for trial in pack] == [True, False]
    for trial in pack:
        trial.tracker.finish(0)


# -------------------------------------------------------------------------------------- predictions and charts


def test_the_charts_show_what_the_metrics_say(tmp_path: Path) -> None:
    predictions = answers(write_predictions(tmp_path, rows=400))
    counts, curve = confusions(predictions), calibration(predictions)
    labels = torch.nn.functional.one_hot(torch.from_numpy(predictions.labels_N), 3)
    said = classification_metrics(torch.from_numpy(predictions.probabilities_NC), labels)
    assert counts.sum(axis=1).tolist() == numpy.bincount(predictions.labels_N).tolist()
    assert counts.trace() / 400 == pytest.approx(said["accuracy"])
    gaps = numpy.abs(curve.confidence_B - curve.accuracy_B) * curve.rows_B
    assert gaps.sum() / 400 == pytest.approx(said["ece"])


def test_a_certain_and_a_wavering_answer_have_their_bins(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "loss": [0.0, 0.7], "label": ["a", "a"], "probability_a": [1.0, 0.5]}
    parquet.write_table(pa.table({**columns, "probability_b": [0.0, 0.5]}), tmp_path / "predictions.parquet")
    curve = calibration(answers(tmp_path / "predictions.parquet"))
    assert (curve.confidence_B.tolist(), curve.rows_B.tolist()) == ([0.5, 1.0], [1, 1])


def test_predictions_go_as_a_table_and_charts_of_all_rows(tmp_path: Path) -> None:
    opened = Opened(WandbTracking(mode="offline"), tmp_path / "run")
    opened.train(write_predictions(opened.folder, rows=MOST_ROWS + 7))
    sent = tables(files_below(opened.folder))
    assert opened.said == []
    assert sent["predictions"]["columns"][:4] == ["id", "loss", "label", "probability_class 0"]
    assert len(sent["predictions"]["data"]) == MOST_ROWS and sent["predictions"]["data"][0][0] == "row 0"
    assert sum(row[2] for row in sent["confusion_matrix_table"]["data"]) == MOST_ROWS + 7
    assert sum(row[3] or 0 for row in sent["calibration_table"]["data"]) == MOST_ROWS + 7
    run = opened.read_back()
    assert run["step"] == 5 and run["summary"]["train/loss"] == 0.125


@pytest.mark.parametrize(
    ("classes", "sent"), [(0, ["predictions"]), (MOST_CLASSES + 1, ["calibration_table", "predictions"])]
)
def test_no_chart_is_sent_that_has_nothing_to_show(tmp_path: Path, classes: int, sent: list[str]) -> None:
    opened = Opened(WandbTracking(mode="offline"), tmp_path / "run")
    opened.train(write_predictions(opened.folder, rows=5, classes=classes))
    assert (sorted(tables(files_below(opened.folder))), opened.said) == (sent, [])


def test_predictions_stay_here_when_asked(tmp_path: Path) -> None:
    opened = Opened(WandbTracking(mode="offline", log_predictions=False), tmp_path / "run")
    opened.train(write_predictions(opened.folder, rows=5))
    assert (tables(files_below(opened.folder)), opened.said) == ({}, [])


def test_predictions_that_cannot_be_read_are_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    opened = Opened(WandbTracking(mode="offline"), tmp_path / "run")
    opened.folder.mkdir(parents=True, exist_ok=True)
    (damaged := opened.folder / "predictions.parquet").write_bytes(b"PAR1")
    opened.train(damaged)
    (said,) = opened.said
    assert said.startswith("predictions.parquet did not go to W&B (") and said.endswith("it is in the run folder")
    assert opened.read_back()["summary"]["state"] == "finished"


# -------------------------------------------------------------------------------------------- W&B, the server


@pytest.fixture
def black_hole() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_that_never_answers_means_offline_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, black_hole: str, mode: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", black_hole)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    opened = Opened(WandbTracking(mode=mode, timeout_s=1.0), tmp_path / "run")
    opened.train()
    assert opened.read_back()["run_id"] == ID
    (said,) = opened.said
    assert said.startswith("W&B cannot be reached (") and "wandb sync " in said


@pytest.mark.timeout(60)
def test_a_refused_port_means_offline_and_the_next_trial_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    first = Opened(WandbTracking(timeout_s=1.0), tmp_path / "first")
    second = Opened(WandbTracking(timeout_s=1e6), tmp_path / "second", run_id="second")
    second.tracker.finish(0)
    first.train()
    assert "connection refused" in first.said[0] and "connection refused" in second.said[0]
    assert second.runs == ["offline"] and first.read_back()["step"] == 5
    assert not [path for path in first.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.timeout(60)
def test_a_host_that_nobody_knows_is_named_with_where_its_name_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://no-such-host.invalid")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    opened = Opened(WandbTracking(timeout_s=1.0), tmp_path / "run")
    opened.train()
    (said,) = opened.said
    why = "no address is known for no-such-host.invalid (from WANDB_BASE_URL): check the network and the name"
    assert said.startswith(f"W&B cannot be reached ({why}); logging offline into ") and "\n" not in said


def test_a_server_that_wandb_chose_by_itself_is_called_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "")
    opened = Opened(WandbTracking(), tmp_path / "run")
    opened.train()
    default = wandb.Settings.model_fields["base_url"].default
    assert f"no API key for {default} (the default server of wandb {wandb.__version__}; " in opened.said[0]


@pytest.mark.parametrize(
    ("url", "key", "problem"),
    [
        (
            "http://127.0.0.1:9",
            "",
            "there is no API key for http://127.0.0.1:9 .*: run `wandb login` or set WANDB_API_KEY",
        ),
        ("http://no-such-host.invalid", KEY, "no address is known for no-such-host.invalid .*: check the network"),
        ("http://127.0.0.1:9", KEY, "127.0.0.1 does not answer at port 9 .*: Connection refused"),
    ],
)
def test_a_server_that_cannot_be_asked_is_told_before_any_agent_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, key: str, problem: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr("subprocess.Popen", None)
    assert main.main(["agent", "me/p/s", "--trials", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"danube-sweep: error: W&B: {problem}.*; or run .*: danube-sweep sweep FILE", line)
    assert "WANDB_SERVICE" not in os.environ, "the agents would share its service process"
    said: list[str] = []
    assert sweep_name(WandbTracking(), "s1", said.append) == "s1"
    assert re.fullmatch(rf"W&B does not tell the name of sweep s1 \({problem}.*\): its runs are .*", said[0])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


@pytest.mark.timeout(60)
def test_with_key_and_server_auto_logs_online(tmp_path: Path, server: Server) -> None:
    opened = Opened(WandbTracking(), tmp_path / "run")
    opened.train()
    assert (opened.runs, opened.said) == (["run"], [])
    assert [row["_step"] for row in server.runs[ID].history] == [1, 2, 3, 4, 5]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("log_adapter", [False, True])
def test_the_adapter_is_uploaded_when_asked_and_the_charts_always(
    tmp_path: Path, server: Server, log_adapter: bool
) -> None:
    opened = Opened(WandbTracking(log_adapter=log_adapter), tmp_path / "run")
    (opened.folder / "adapter").mkdir()
    (opened.folder / "adapter" / "head.safetensors").write_bytes(b"weights")
    opened.train(write_predictions(opened.folder, rows=9), opened.folder / "adapter")
    assert opened.said == []
    assert sorted(tables(server.files[ID])) == ["calibration_table", "confusion_matrix_table", "predictions"]
    (last,) = [row for row in server.runs[ID].history if row["_step"] == 5]
    assert {"validation/predictions", "validation/calibration_table", "train/loss"} <= last.keys()
    uploaded = {"head.safetensors": b"weights"} if log_adapter else {}
    assert {name: data for name, data in server.files[f"adapter-{ID}"].items() if "manifest" not in name} == uploaded
    # A table that went as an artifact would ask a dead server first and wait for its answer.
    assert ("ArtifactType" in server.operations) == log_adapter


@pytest.mark.timeout(60)
def test_a_server_lost_during_the_run_neither_blocks_nor_breaks_its_end(tmp_path: Path, server: Server) -> None:
    opened = Opened(WandbTracking(timeout_s=0.5), tmp_path / "run")
    assert opened.said == []
    server.silent.set()
    opened.train()
    (said,) = opened.said
    assert said.startswith("W&B failed (Timed out") and "wandb sync " in said


@pytest.mark.timeout(60)
def test_a_trial_that_joins_while_others_log_does_not_end_their_runs(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(WandbTracking(timeout_s=1.0), tmp_path / "run")
    server.silent.set()
    late = Opened(WandbTracking(timeout_s=1.0), tmp_path / "late", run_id="late")
    late.train()
    assert len(late.said) == 1 and late.said[0].startswith("W&B does not start (")
    server.silent.clear()
    opened.train()
    assert opened.said == []


@pytest.mark.timeout(60)
def test_what_a_lost_server_missed_is_uploaded_by_the_command_that_was_said(tmp_path: Path, server: Server) -> None:
    opened = Opened(WandbTracking(timeout_s=0.5), tmp_path / "run")
    server.silent.set()
    opened.train(write_predictions(opened.folder, rows=9))
    server.silent.clear()
    (said,) = opened.said
    command = said.split("upload later with: wandb ")[1].split()
    warm.run("-m", "wandb", *command, cwd=tmp_path).check_returncode()
    run = server.runs[ID]
    assert sorted({row["_step"] for row in run.history}) == [1, 2, 3, 4, 5]
    assert (run.summary["state"], run.summary["train/loss"]) == ("finished", 0.125)
    assert sorted(tables(server.files[ID])) == ["calibration_table", "confusion_matrix_table", "predictions"]


def test_a_dead_wandb_process_is_said_once_and_the_trial_goes_on(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from danube_sweep.config.schema import WandbTracking
from danube_sweep.tracking import open_tracker
folder, said = Path(sys.argv[1]), []
tracker = open_tracker(
    WandbTracking(mode="offline"), run_id="x", run_name="x", folder=folder, resolved={}, say=said.append
)
me = os.getpid()
for child in Path(f"/proc/{me}/task/{me}/children").read_text().split():
    os.kill(int(child), signal.SIGKILL)
    os.waitpid(int(child), 0)
for step in range(200):
    tracker.log(step, {"loss": 1.0})
tracker.summary({"state": "finished"})
tracker.finish(0)
print(len(said), said[0])
"""
    done = warm.run("-c", script, tmp_path)
    assert done.stdout.startswith("1 W&B failed ("), done
