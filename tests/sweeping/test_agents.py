"""`danube-sweep agent` ends as its agents did: W&B's own exit code is 0 whatever became of the trials."""

from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from conftest import TINY
from wandb_client import client
from wandb_server import ENTITY, PROJECT

from danube_sweep.config.schema import Config
from danube_sweep.errors import SweepFailed
from danube_sweep.storage.files import write_json
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.share import agents

Tiny = Callable[..., Config]


def test_agents_that_give_up_are_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    with client(tmp_path_factory, "agents") as user:
        own = [word for word in TINY if word != "tracking=none"]
        fixed = [*own, "tracking=wandb", "tracking.timeout_s=20", "data.generator=nowhere"]
        sweep = user.sweep(fixed, name="bad", parameters={"seed": {"values": [1, 2, 3]}})
        user.handed(sweep).draws = True
        words = ["-m", "danube_sweep", "agent", f"{ENTITY}/{PROJECT}/{sweep}"]
        # The stock rule of three failures counts in the first minute alone; this one, of all failures.
        environment = {**user.environment, "WANDB_AGENT_MAX_INITIAL_FAILURES": "2"}
        done = warm.run(*words, cwd=user.place, env=environment)
    assert done.returncode == 1
    assert "nowhere" in done.stderr, "what the trials print is passed on"
    assert "1 of 1 agents gave up after failed trials (0 finished, 0 failed in" in done.stderr.splitlines()[-1]


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
