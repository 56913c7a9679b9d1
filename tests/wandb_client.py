"""The stock W&B client against the server of the tests: `wandb sweep`, `wandb agent`, and the trials that it starts."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from wandb_controller import Handed
from wandb_server import ENTITY, PROJECT, Server, clients_environment
from warm_door import WarmDoor

from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder

WAIT_S = 200
METRIC = {"name": "validation/log_loss", "goal": "minimize"}


def until(happens: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


@contextmanager
def client(factory: pytest.TempPathFactory, name: str) -> "Iterator[Client]":
    """A client in a folder of its own, for a fixture of a module: its processes are forked and share the caches."""
    place = factory.mktemp(name)
    with Server() as server, WarmDoor(place) as door, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("DANUBE_SWEEP_CACHE", str(factory.getbasetemp() / "cache"))
        yield Client(place, server, door)
        assert server.refused == []


@dataclass
class Client:
    """A user's working directory, from which sweeps are made and agents started."""

    place: Path
    server: Server
    door: WarmDoor

    @property
    def environment(self) -> dict[str, str]:
        return clients_environment(self.server.url, self.place / "home")

    def sweep(self, fixed: list[str], **sheet: Any) -> str:
        """Makes a sweep whose command has these overrides; returns its id."""
        command = [*self.door.command("-m", "danube_sweep"), "${args_no_hyphens}", *fixed]
        described = {"program": "danube_sweep", "method": "grid", "metric": METRIC, **sheet, "command": command}
        (self.place / "sheet.yaml").write_text(yaml.safe_dump(described))
        self.wandb("sweep", "--entity", ENTITY, "--project", PROJECT, "sheet.yaml")
        return list(self.server.sweeps)[-1]

    def wandb(self, *words: str) -> str:
        """What `wandb WORDS…` printed."""
        done = warm.run("-m", "wandb", *words, cwd=self.place, env=self.environment)
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    def agent(self, sweep: str, **environment: str) -> "subprocess.Popen[str]":
        """A stock agent, started."""
        with (self.place / f"agent-of-{sweep}.txt").open("a") as printed:
            return warm.popen(
                *("-m", "wandb", "agent", f"{ENTITY}/{PROJECT}/{sweep}"),
                cwd=self.place,
                env=self.environment | environment,
                stdout=printed,
                stderr=printed,
            )

    def printed(self, sweep: str) -> str:
        """What the agents of a sweep printed."""
        return (self.place / f"agent-of-{sweep}.txt").read_text()

    def handed(self, sweep: str) -> Handed:
        return self.server.sweeps[sweep]

    def folder(self, sweep: str) -> SweepFolder:
        return SweepFolder(self.place / "multirun" / sweep)

    def trial(self, sweep: str, **wanted: Any) -> RunFolder:
        """The one trial with these overrides."""
        texts = {f"{key}={value}" for key, value in wanted.items()}
        (found,) = (entry for entry in self.folder(sweep).entries() if texts <= set(entry.overrides))
        return found.folder
