"""Trials of several stock agents that one executor of the machine trains: the same trials, each its own W&B run."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, compose
from runs import metrics, train
from wandb_client import Client, client, until

from danube_sweep.storage.sweep_folder import attempts
from danube_sweep.sweeping.share.meeting_place import socket_of

pytestmark = [pytest.mark.timeout(600), pytest.mark.full]
OWN = [one for one in TINY if one != "tracking=none"]
FIXED = ["data.rows=40", *OWN, "tracking=wandb", "tracking.timeout_s=20", "trainer.validate_every=2", "precision=fp32"]
SHORT = {"trainer.max_steps": 4}
FOREVER = {"trainer.max_steps": 100_000}
LOSS = "validation/log_loss"


class Shared:
    """Two agents of a user's own: two trials in a pack, then one that loses its agent and one its executor."""

    def __init__(self, user: Client) -> None:
        self.client, self.server = user, user.server
        self.sweep = user.sweep(
            [*FIXED, "tracking.share=true", "sweep.pack=2"],
            name="shared",
            parameters={"lora.rank": {"min": 2, "max": 9}},
        )
        self.folder = user.folder(self.sweep)
        with self.folder.locked():
            self.folder.write({"door": "wandb agent", "settings": {}, "tracking": {"group": "shared"}})
        handed = user.handed(self.sweep)
        handed.waiting = [("one", {"lora.rank": 2, **SHORT}), ("two", {"lora.rank": 4, **SHORT})]
        agents = [user.agent(self.sweep) for _ in range(2)]
        self.codes = [agent.wait() for agent in agents]
        self._lose()

    def _executor(self) -> int:
        """The process that one of the children has started."""
        return int(json.loads((self.folder.path / "executor.json").read_text())["process"])

    def _lose(self) -> None:
        user, server, handed = self.client, self.server, self.client.handed(self.sweep)
        handed.waiting = [("stopped", {"lora.rank": 3, **FOREVER}), ("lost", {"lora.rank": 5, **FOREVER})]
        agents = [user.agent(self.sweep) for _ in range(2)]
        until(lambda: all(name in server.runs and len(server.runs[name].history) > 1 for name in ("stopped", "lost")))
        user.door.kill("lora.rank=5")  # the child of one agent dies: its trial leaves the pack, and the other goes on
        lost = user.trial(self.sweep, **{"lora.rank": 5})
        until(lambda: attempts(lost))
        self.lost_alone = server.runs["stopped"].exit_code is None
        # The trial's process starts another executor, with all its imports.
        before = len(server.runs["stopped"].history)
        os.kill(self._executor(), signal.SIGKILL)
        until(lambda: len(server.runs["stopped"].history) > before + 5)
        handed.to_stop = {"stopped"}
        for agent in agents:
            agent.wait()
        self.named = json.loads((self.folder.path / "executor.json").read_text())
        os.kill(self._executor(), signal.SIGTERM)
        until(lambda: not (self.folder.path / "executor.json").exists())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with client(tmp_path_factory, "shared") as user:
        yield Shared(user)


def test_both_agents_end_well_and_each_trial_is_the_one_that_trains_alone(shared: Shared, tmp_path: Path) -> None:
    assert shared.codes == [0, 0]
    for name, rank in (("one", 2), ("two", 4)):
        point = {"lora.rank": rank, **SHORT}
        folder = shared.client.trial(shared.sweep, **point)
        words = [*(f"{key}={value}" for key, value in point.items()), *FIXED[:1], *TINY, *FIXED[-2:]]
        alone = train(compose(words), tmp_path / name)
        result = json.loads(folder.result.read_text())
        assert (result["trial"], result["state"]) == (alone["trial"], "finished")
        assert result["validation"]["log_loss"] == pytest.approx(alone["validation"]["log_loss"], abs=1e-5)
        assert result["measured"]["packed"] == 2
        assert [row["step"] for row in metrics(folder.path, "train")] == ["1", "2", "3", "4"]


def test_each_child_logs_its_own_run(shared: Shared) -> None:
    for name, rank in (("one", 2), ("two", 4)):
        run = shared.server.runs[name]
        folder = shared.client.trial(shared.sweep, **{"lora.rank": rank, **SHORT})
        validated = [(row["_step"], row[LOSS]) for row in run.history if LOSS in row]
        rows = metrics(folder.path, "validation")
        assert validated == [(int(row["step"]), pytest.approx(float(row["log_loss"]), abs=1e-12)) for row in rows]
        trained = [row["train/loss"] for row in run.history if "train/loss" in row]
        assert trained == [pytest.approx(float(row["loss"]), abs=1e-12) for row in metrics(folder.path, "train")]
        assert (run.exit_code, run.sweep, run.group, run.summary["state"]) == (0, shared.sweep, "shared", "finished")
        assert any("confusion_matrix" in name for name in shared.server.files[name])


def test_the_executor_that_the_children_have_started_packs(shared: Shared) -> None:
    printed = (shared.folder.path / "executor.log").read_text()
    assert "finished" in printed and len(list(shared.folder.path.glob("p*.log"))) >= 2
    assert shared.named["socket"] == str(socket_of(shared.folder.path))
    assert not Path(shared.named["socket"]).exists()


def test_a_child_that_dies_is_a_preemption_of_its_trial_alone(shared: Shared) -> None:
    lost = shared.client.trial(shared.sweep, **{"lora.rank": 5})
    assert shared.lost_alone
    assert [one.state for one in attempts(lost)] == ["preempted"]
    assert lost.has_checkpoints and not lost.result.is_file()


def test_a_stopped_trial_leaves_a_checkpoint_and_an_executor_that_dies_does_not_end_it(shared: Shared) -> None:
    run = shared.server.runs["stopped"]
    steps = [row["_step"] for row in run.history if "train/loss" in row]
    assert steps == sorted({*steps}) and (run.exit_code, run.summary["state"]) == (143, "preempted")
    stopped = shared.client.trial(shared.sweep, **{"lora.rank": 3})
    assert attempts(stopped)[-1].state == "preempted" and stopped.has_checkpoints
    assert shared.client.door.ended("lora.rank=3") == [143]
