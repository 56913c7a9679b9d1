"""The W&B agent's door: its trials are the same trials, are found again, stop cleanly and come one at a time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, compose
from runs import StopAfter, metrics, train
from wandb_client import Client, client
from wandb_server import SWEEP, Server

from danube_sweep.cli import main
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.schema import Config, NoTracking
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, ConfigError, Interrupted
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.entry.wandb_agent import refuse_multirun, shared_trial, trial_words, under_agent
from danube_sweep.sweeping.share.shared_trial import SHARE

Tiny = Callable[..., Config]

FIXED = ["data.rows=60", *TINY, "trainer.validate_every=1000", "tracking=wandb", "tracking.timeout_s=5"]
SHORT = {"lora.rank": 4, "trainer.max_steps": 3}
LONG = {"lora.rank": 8, "trainer.max_steps": 100_000}
"""Never reached: it is asked to stop as soon as it has reported."""


def trial_folder(config: Config, overrides: list[str]) -> Path:
    return Path(trial_words(config, overrides)[0].removeprefix("hydra.run.dir="))


@pytest.fixture
def in_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", SWEEP)


# --------------------------------------------------------------------------------------------------- the folder


@pytest.mark.usefixtures("in_sweep")
def test_a_trial_has_one_folder_in_its_sweep_however_often_it_is_handed_out(tiny: Tiny) -> None:
    first, second = (trial_folder(tiny(f"lora.rank={rank}"), [f"lora.rank={rank}"]) for rank in (4, 8))
    again = trial_folder(tiny("lora.rank=4"), ["lora.rank=4"])
    assert first == again != second
    assert first == Path("multirun", SWEEP, f"001_rank-4_{trial_hash(tiny('lora.rank=4'))[:8]}")
    assert SweepFolder(first.parent).read() == {"door": "wandb agent", "settings": {}, "tracking": {}}
    assert [entry.overrides for entry in SweepFolder(first.parent).entries()] == [["lora.rank=4"], ["lora.rank=8"]]


@pytest.mark.usefixtures("in_sweep")
def test_no_trial_of_an_agent_is_scored_on_a_test_split(tiny: Tiny) -> None:
    assert trial_words(tiny("trainer.benchmark=[arc_easy]"), ["lora.rank=4"])[1:] == ["trainer.benchmark_test=false"]


@pytest.mark.usefixtures("in_sweep")
def test_the_folder_is_named_by_what_the_agent_chose(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chosen.yaml").write_text("wandb_version: 1\n\nlora.rank:\n  value: 4\n")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "chosen.yaml"))
    overrides = ["lora.rank=4", "data.rows=60", "+experiment=embedded"]
    folder = trial_folder(tiny("lora.rank=4"), overrides)
    assert folder.name.startswith("001_rank-4_") and folder.name.count("_") == 2
    assert [entry.overrides for entry in SweepFolder(folder.parent).entries()] == [overrides]


@pytest.mark.usefixtures("in_sweep")
def test_a_sweep_folder_of_another_version_is_left_alone(tiny: Tiny) -> None:
    file = Path("multirun", SWEEP, "sweep.json")
    file.parent.mkdir(parents=True)
    file.write_text('{"format": 0}')
    with pytest.raises(CheckpointError, match="another version"):
        trial_folder(tiny(), [])
    assert file.read_text() == '{"format": 0}'


@pytest.mark.parametrize("sweep", ["..", "a/b", "/tmp/x", "a b", "x\n", "a" * 200])
def test_a_sweep_id_cannot_leave_the_folder_of_sweeps(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
    with pytest.raises(ConfigError, match=r"WANDB_SWEEP_ID=.*: not the id of a sweep"):
        trial_folder(tiny(), [])
    assert list(tmp_path.iterdir()) == []


def test_without_an_agent_there_is_no_sweep_and_a_multirun_is_welcome(tiny: Tiny) -> None:
    assert under_agent() is None
    refuse_multirun()
    with pytest.raises(ConfigError, match="WANDB_SWEEP_ID is not set"):
        trial_folder(tiny(), [])


@pytest.mark.usefixtures("in_sweep")
def test_a_multirun_under_an_agent_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["-m", "lora.rank=4,8", *FIXED]) == 2
    _, said = capfd.readouterr()
    assert said.count("\n") == 1 and f"agent of sweep {SWEEP} starts one trial at a time; remove -m" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("in_sweep")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir", "mine", "tracking.share=true"], "--config-dir: an executor that trials share"),
        (["hydra.run.dir=here", "tracking.share=true"], "hydra.run.dir=here: an executor that trials share"),
        (["by_command", "hydra.run.dir=here"], "hydra.run.dir=here: an executor that trials share"),
        (["by_command", "tracking=tensorboard"], "tracking=tensorboard: trials share an executor with tracking=wandb"),
    ],
)
def test_a_trial_that_cannot_share_an_executor_as_asked_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[0] == "by_command":
        monkeypatch.setenv(SHARE, "--trials 2")
    fixed = FIXED if "tracking=tensorboard" not in words else FIXED[:-2]
    with pytest.raises(ConfigError, match=said):
        shared_trial([*fixed, *(word for word in words if word != "by_command")])
    assert list(tmp_path.iterdir()) == []
    assert not shared_trial([*FIXED, "tracking.share=true", "-m"]), "which is refused by its own line"


# ------------------------------------------------------------------------------------------------ the real agent


@dataclass
class Swept:
    """What `wandb sweep` and two agents in a row left: the first had one point, the second it again and a long one."""

    client: Client
    first_metrics: bytes

    @property
    def server(self) -> Server:
        return self.client.server

    @property
    def folder(self) -> Path:
        return self.client.folder(SWEEP).path

    def entry(self, **wanted: Any) -> RunFolder:
        return self.client.trial(SWEEP, **wanted)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    with client(tmp_path_factory, "agent") as user:
        parameters = {key: {"values": [SHORT[key], LONG[key]]} for key in SHORT}
        sweep = user.sweep(FIXED, name="ranks, short & long", parameters=parameters)
        handed = user.handed(sweep)
        handed.waiting = [("first", SHORT)]
        assert user.agent(sweep).wait() == 0
        written = next((user.place / "multirun" / SWEEP).glob("*/metrics.csv")).read_bytes()
        handed.waiting, handed.at_once, handed.to_stop = [("again", SHORT), ("long", LONG)], 2, {"long"}
        assert user.agent(sweep).wait() == 0
        yield Swept(user, written)


def test_the_sweep_file_reaches_the_server_and_its_trials_the_sweeps_folder(swept: Swept) -> None:
    assert swept.client.handed(SWEEP).config["metric"]["name"] == "validation/log_loss"
    assert SweepFolder(swept.folder).read()["door"] == "wandb agent"
    assert len(SweepFolder(swept.folder).entries()) == 2


def test_a_trial_by_the_agent_is_the_trial_by_itself(swept: Swept, tmp_path: Path) -> None:
    overrides = [*FIXED, "tracking=none", *(f"{key}={value}" for key, value in SHORT.items())]
    alone = train(compose([one for one in overrides if one != "tracking.timeout_s=5"]), tmp_path / "run")
    folder = swept.entry(**SHORT)
    result = json.loads(folder.result.read_text())
    assert (result["trial"], result["state"]) == (alone["trial"], "finished")
    assert result["validation"] == alone["validation"]
    for part in ("train", "validation"):
        assert metrics(folder.path, part) == metrics(tmp_path / "run", part)
    assert folder.predictions.read_bytes() == (tmp_path / "run" / "predictions.parquet").read_bytes()


def test_the_server_has_the_history_of_the_run_it_named(swept: Swept) -> None:
    run = swept.server.runs["first"]
    result = json.loads(swept.entry(**SHORT).result.read_text())
    assert (run.sweep, run.exit_code) == (SWEEP, 0)
    validations = [row["validation/log_loss"] for row in run.history if "validation/log_loss" in row]
    assert validations == [pytest.approx(result["validation"]["log_loss"], abs=1e-12)]
    assert run.summary["validation/log_loss"] == pytest.approx(result["validation"]["log_loss"], abs=1e-12)
    assert any("predictions" in name for name in swept.server.files["first"])
    assert len(list(swept.entry(**SHORT).path.glob("wandb/run-*-first/*.wandb"))) == 1


def test_a_point_handed_out_again_reports_its_result_and_trains_nothing(swept: Swept) -> None:
    assert swept.client.door.ended("lora.rank=4") == [0, 0]
    assert swept.entry(**SHORT).metrics.read_bytes() == swept.first_metrics
    again, first = swept.server.runs["again"], swept.server.runs["first"]
    assert again.exit_code == 0
    assert again.summary["validation/log_loss"] == first.summary["validation/log_loss"]
    tables = [{name.rsplit("_", 2)[0] for name in swept.server.files[run]} for run in ("again", "first")]
    assert tables[0] == tables[1] and any("confusion_matrix" in name for name in tables[0])


def test_the_runs_are_grouped_by_the_name_of_their_sweep(swept: Swept) -> None:
    assert {run.group for run in swept.server.runs.values()} == {"ranks, short & long"}
    assert swept.server.operations.count("GetSweep") == 1
    assert SweepFolder(swept.folder).read()["tracking"] == {"group": "ranks, short & long"}


def test_a_stopped_trial_leaves_a_checkpoint_and_goes_on_from_it(swept: Swept) -> None:
    assert swept.client.door.ended("lora.rank=8") == [143]
    assert swept.server.runs["long"].exit_code == 143
    folder = swept.entry(**LONG)
    steps = len(metrics(folder.path, "train"))
    assert folder.read_result() is None and any(folder.checkpoints.iterdir())

    config = load_config(folder.config)
    config.tracking = NoTracking()
    with pytest.raises(Interrupted, match=f"at step {steps + 1} of"):
        train(config, folder.path, stop=StopAfter(1))
    assert len(metrics(folder.path, "train")) == steps + 1
