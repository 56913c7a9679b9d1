"""The job that a sweep gives to a process of its own, and the messages between the two.

A message about a trial names it by its folder. The parent sends answers to a child that waits for one. It may send a
`Dismissal` at any time, which is kept until the child looks for it.
"""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from danube_sweep.config.schema import Config
from danube_sweep.config.schema.states import Verdict
from danube_sweep.training.ranks import Meeting


@dataclass(frozen=True)
class PackTrial:
    """A trial of a pack."""

    path: Path
    config: Config
    note: str
    """The line about the pack in its log."""

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Job:
    """The data that a child needs. It is pickled, so nothing of it is composed or read again."""

    path: Path
    working_directory: Path
    environment: dict[str, str]
    config: Config | None = None
    threads: int | None = None
    """CPU threads where the config leaves them open, so that slots don't contend."""
    pack: tuple[PackTrial, ...] = ()
    """Trials that train together, and whose places are filled again, instead of `config`; `path` is the first's."""
    log: Path | None = None
    """Where the process prints; None is the log of the trial in `path`."""
    output: Connection | None = None
    """A pipe that the process prints into instead."""
    ranks: tuple[dict[str, str], ...] = ()
    """For a job of several processes, each on a device of its own: the variables that each adds to its environment."""
    meeting: Meeting | None = None
    """Where this process meets the others; set when they start."""


@dataclass(frozen=True)
class Started:
    """The trial is built and trains."""

    trial: str
    total_steps: int
    done_steps: int


@dataclass(frozen=True)
class Told:
    """Lines that the trial has in common with others of the sweep: to be shown once."""

    about: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Alive:
    """A step or a batch of an evaluation is done."""


@dataclass(frozen=True)
class Stepped:
    """The trial got on."""

    trial: str
    step: int
    loss: float
    tokens_per_s: float


@dataclass(frozen=True)
class Validated:
    """The trial was validated and waits for a `Verdict`."""

    trial: str
    number: int
    """Its validations so far."""


@dataclass(frozen=True)
class Failed:
    """The error that ended the trial, and the state it ends in. It can be a user's mistake found while the trial was
    built.

    From a process with a pack: the error that ended all trials left in it.
    """

    state: str
    reason: str


@dataclass(frozen=True)
class Left:
    """The trial has left its pack; `code` is how its process would have exited, had it been alone."""

    trial: str
    code: int
    failed: Failed | None


@dataclass(frozen=True)
class Asked:
    """The pack has a free place and waits for a `PackTrial`, or None."""


@dataclass(frozen=True)
class Dismissal:
    """From the parent, unasked: the trial is to leave its pack, and why."""

    trial: str
    reason: str


Message = Started | Told | Alive | Stepped | Validated | Failed | Left | Asked
Answer = Verdict | PackTrial | None
