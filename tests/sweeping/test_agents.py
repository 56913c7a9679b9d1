"""`danube-sweep agent` ends as its agents did: W&B's own exit code is 0 whatever became of the trials."""

import io
import json
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import warm
from conftest import TINY
from sweeps import left_over
from wandb_client import client, until
from wandb_server import ENTITY, PROJECT

from danube_sweep.config.schema import Config
from danube_sweep.errors import SweepFailed
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import SweepFolder, attempts
from danube_sweep.sweeping.share import agents
from danube_sweep.sweeping.share.agent_command import TrialError
from danube_sweep.sweeping.share.meeting_place import EXECUTOR

OWN = [word for word in TINY if word != "tracking=none"]
Tiny = Callable[..., Config]


def test_agents_that_give_up_are_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    with client(tmp_path_factory, "agents") as user:
        fixed = [*OWN, "tracking=wandb", "tracking.timeout_s=20", "data.generator=nowhere"]
        sweep = user.sweep(fixed, name="bad", parameters={"seed": {"values": [1, 2, 3]}})
        user.handed(sweep).draws = True
        words = ["-m", "danube_sweep", "agent", f"{ENTITY}/{PROJECT}/{sweep}"]
        # The stock rule of three failures counts in the first minute alone; this one, of all failures.
        environment = {**user.environment, "WANDB_AGENT_MAX_INITIAL_FAILURES": "2"}
        done = warm.run(*words, cwd=user.place, env=environment)
    assert done.returncode == 1
    assert "nowhere" in done.stderr, "what the trials print is passed on"
    assert "1 of 1 agents gave up after failed trials (0 finished, 0 failed in" in done.stderr.splitlines()[-1]


def test_a_trial_with_a_mistake_is_an_error_that_names_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with client(tmp_path_factory, "mistake") as user:
        sweep = user.sweep([*OWN, "tracking=wandb"], name="typo", parameters={"lora.rank": {"values": [2]}})
        user.handed(sweep).waiting = [("typo", {"lora.rank": 2, "data.generator": "nowhere"})]
        done = warm.run(
            "-m", "danube_sweep", "agent", f"{ENTITY}/{PROJECT}/{sweep}", cwd=user.place, env=user.environment
        )
        assert not user.folder(sweep).entries()
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("danube-sweep: error: 1 trial cannot train: lora.rank=2 data.generator=nowhere: ")
    assert said.endswith("; 0 finished")


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_checkpoints_and_no_process(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    with client(tmp_path_factory, "stopped") as user:
        fixed = [*OWN, "data.rows=40", "tracking=wandb", "tracking.timeout_s=20", "trainer.max_steps=100000"]
        sweep = user.sweep(fixed, name="long", parameters={"lora.rank": {"values": [2, 4]}})
        user.handed(sweep).draws = True
        words = ("-m", "danube_sweep", "agent", f"{ENTITY}/{PROJECT}/{sweep}", "--trials", "2", "sweep.pack=2")
        with (user.place / "agent.txt").open("w") as printed:
            streams = {"stdout": printed, "stderr": printed}
            command = warm.popen(*words, cwd=user.place, env=user.environment, **streams)
        runs = user.server.runs
        until(lambda: len(runs) == 2 and all(run.history for run in runs.values()))
        started = [process_of(user.folder(sweep).path), *descendants(command.pid)]
        command.send_signal(number)
        assert command.wait() == 128 + number
        assert not left_over([str(one) for one in started])
        for entry in user.folder(sweep).entries():
            assert [one.state for one in attempts(entry.folder)] == ["preempted"]
            assert entry.folder.has_checkpoints and not entry.folder.result.is_file()
    assert {run.exit_code for run in runs.values()} == {128 + number}
    said = (user.place / "agent.txt").read_text().splitlines()[-1]
    assert said == "danube-sweep: stopped: the agents have left; start them again to go on"


def process_of(sweep: Path) -> int:
    """The process of the sweep's executor."""
    return int(json.loads((sweep / EXECUTOR).read_text())["process"])


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children = [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return [*children, *(one for child in children for one in descendants(child))]


WRONG = TrialError("lora.rank=0", "lora.rank must be at least 1", 2)


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([WRONG], r"1 trial cannot train: lora.rank=0: lora.rank must be at least 1; 2 finished"),
        ([WRONG] * 4, r"4 trials cannot train: lora.rank=0, lora.rank=0, lora.rank=0 and 1 more: lora.rank must be"),
        (
            [WRONG, replace(WRONG, error="another")],
            r"2 trials cannot train: .* \(the first one's mistake\); 2 finished",
        ),
        ([replace(WRONG, code=1)], None),
    ],
)
def test_mistakes_are_an_error_whatever_finished(
    tmp_path: Path, tiny: Tiny, errors: list[TrialError], said: str | None
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    cells = [[f"lora.rank={rank}"] for rank in (2, 4)]
    with folder.locked():
        for entry, _ in folder.add([(tiny(*words), words, None) for words in cells]):
            write_json(entry.folder.result, {"state": "finished"})
    with pytest.raises(SweepFailed, match=said) if said else nullcontext():
        agents._check(folder, {}, gave_up=0, agents=1, errors=errors)


@pytest.mark.parametrize(("states", "bad"), [(["failed", "oom"], True), (["failed", "finished"], False), ([], False)])
def test_failed_trials_are_an_error_if_none_finished(tmp_path: Path, tiny: Tiny, states: list[str], bad: bool) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    cells = [[f"lora.rank={rank}"] for rank in (2, 4, 8)]
    with folder.locked():
        entries = [entry for entry, _ in folder.add([(tiny(*words), words, None) for words in cells], shared=[])]
    write_json(entries[2].folder.result, {"state": "failed"})  # of an earlier command
    before = agents._results(folder)
    for entry, state in zip(entries, states, strict=False):
        write_json(entry.folder.result, {"state": state})
    if bad:
        with pytest.raises(SweepFailed, match="2 trials failed and none finished; see"):
            agents._check(folder, before, gave_up=0, agents=1)
    else:
        agents._check(folder, before, gave_up=0, agents=1)


def test_an_agent_is_read_to_its_end_where_nobody_reads_us(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Deaf())
    listener = agents._Listener(io.BytesIO(b"a line\n" * 9 + b"Detected 3 failed runs at start, shutting down.\n"))
    listener.join()
    assert listener.gave_up
