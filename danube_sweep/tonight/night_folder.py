"""The folder of a night: night.json has what was asked, the commands so far and their seconds."""

import itertools
import shlex
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from danube_sweep import paths
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import move, read_json, write_json, write_text
from danube_sweep.storage.ownership import Kind, take_over
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.tonight.asked import Asked, asked_of

FORMAT = 1
PREDICT, LIKE = "predict", "--like"
WHOLE, CUT, FAILED = "whole", "cut", "failed"
"""How a command ended: done, stopped or incomplete as sweeps are, or with an error."""


@final
@dataclass
class Ran:
    """A command that was run, or is."""

    stage: str
    words: list[str]
    """Behind `danube-sweep`, without the quotes of a shell."""
    began: float
    """Seconds since the epoch."""
    predicted_s: float | None = None
    backbone: str | None = None
    cells: list[dict[str, Any]] = field(default_factory=list)
    """Of a round: hash, backbone and settings of each trial."""
    seconds: float | None = None
    """None until it has ended."""
    outcome: str = ""


@final
class NightFolder:
    """What is on disk of a night."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "night.json"
        self.commands = path / "commands.sh"
        self.sweep = path / "sweep"
        self.ensemble = path / "ensemble"
        self.refit = path / "refit"
        self.submission = path / "submission.csv"
        self.report = path / "report.html"
        self.ran: list[Ran] = []
        self.sessions: list[list[float]] = []
        """Begin and last sign of life of each process that worked on it, in seconds since the epoch."""
        self.closed = False
        """Whether the last of them has ended by itself."""
        self.asked: Asked | None = None

    def begin(self, asked: Asked) -> None:
        """A new night, or the next session of the one in the folder. Raises CheckpointError for another night."""
        if self.file.is_file():
            self.check_same(asked)
            self._forget_what_is_not_there()
            self.ran = [one for one in self.ran if one.outcome or one.cells]  # what was killed is run again
            if not self.closed:
                self._close_last_session()
        take_over(self.path, Kind.night)
        self.asked = asked
        now = time.time()
        self.sessions.append([now, now])
        self.closed = False
        self.write()

    def close(self) -> None:
        """Ends the session. Raises DiskError."""
        self.closed = True
        self.write()

    def check_same(self, asked: Asked) -> None:
        """Reads the night. Raises CheckpointError if it is of another command; hours and --like may differ."""
        if self.read().same_night != asked.same_night:
            raise CheckpointError(f"{self.path} holds another night; give another folder by -o")

    def read(self) -> Asked:
        """What was asked. Raises CheckpointError for a folder that is no night, or damaged."""
        if not self.file.is_file():
            raise CheckpointError(f"{self.path} is no night: it has no night.json; give a training file and --test")
        stored = read_json(self.file)
        if stored.get("format") != FORMAT:
            raise CheckpointError(f"{self.file} is of another version; start in another folder, by -o")
        self.asked = asked_of(stored.get("asked", {}))
        try:
            self.ran = [Ran(**one) for one in stored["ran"]]
            self.sessions = [[float(began), float(last)] for began, last in stored["sessions"]]
            self.closed = stored.get("closed") is True
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.file} is damaged; start in another folder, by -o") from error
        return self.asked

    def write(self) -> None:
        """night.json and commands.sh. Raises DiskError."""
        assert self.asked is not None
        if self.sessions:
            self.sessions[-1][1] = time.time()
        stored = {"asked": asdict(self.asked), "ran": [asdict(one) for one in self.ran], "sessions": self.sessions}
        write_json(self.file, {"format": FORMAT, **stored, "closed": self.closed})
        lines = [f"# {one.stage}\n{command_line(one.words)}\n" for one in self.ran]
        where = f"# The commands of one night. Each runs as printed, in this folder:\ncd {shlex.quote(str(Path.cwd()))}"
        again = "# Finished trials are kept. To repeat all of it, replace the name of the folder first."
        write_text(self.commands, "\n".join([where, again, "", *lines]))

    def spent_s(self) -> float:
        """Seconds that all sessions worked, this one until now."""
        if not self.sessions:
            return 0.0
        *before, (began, _) = self.sessions
        return sum(last - begin for begin, last in before) + time.time() - began

    def has_ended(self, stage: str) -> bool:
        """Whether a stage has done its work."""
        return any(one.stage == stage and one.outcome == WHOLE for one in self.ran)

    def predicted(self) -> Ran | None:
        """The last command that has written the predictions; None before."""
        return next((one for one in reversed(self.ran) if one.stage == PREDICT and one.outcome == WHOLE), None)

    def source_of(self, predicted: Ran) -> Path:
        """The folder that answered in a command of predictions."""
        return self.path / Path(predicted.words[1]).name

    def is_as_asked(self, predicted: Ran) -> bool:
        """Whether predictions are there, of the test file and in the form of the sample submission as they are now."""
        assert self.asked is not None
        if not self.submission.is_file() or Path(self.asked.test).expanduser().stat().st_mtime > predicted.began:
            return False
        given = predicted.words[predicted.words.index(LIKE) + 1] if LIKE in predicted.words else None
        if given != self.asked.like:  # an earlier sample may have gone
            return False
        return given is None or Path(given).expanduser().stat().st_mtime <= predicted.began

    def set_sweep_aside(self) -> Path:
        """Renames the sweep, so that its trials are searched anew; returns its new path. Raises DiskError."""
        number = next(one for one in itertools.count(1) if not (self.path / f"sweep-{one}").exists())
        place = self.path / f"sweep-{number}"
        move(self.sweep, place)
        for one in self.ran:
            one.cells = []
        self.write()
        return place

    def place(self, path: Path) -> str:
        """A path as commands name it."""
        return str(paths.from_here(path))

    def _forget_what_is_not_there(self) -> None:
        # A round that was killed may have added only some of its trials; without a sweep no round has added any.
        sweep = SweepFolder(self.sweep)
        there = {one.hash for one in sweep.entries()} if sweep.file.is_file() else set()
        for one in self.ran:
            if not one.outcome or not there:
                one.cells = [cell for cell in one.cells if cell["hash"] in there]

    def _close_last_session(self) -> None:
        # A process that was killed has left its last sign of life in the files that trials write. Others may be newer.
        if not self.sessions:
            return
        began, last = self.sessions[-1]
        places = (self.sweep, self.refit, self.ensemble)
        signs = [one.lstat().st_mtime for place in places for one in place.rglob("*") if one.is_file()]
        self.sessions[-1][1] = max([last, *(sign for sign in signs if began <= sign <= time.time())])


def command_line(words: list[str]) -> str:
    """A command as a shell takes it."""
    return shlex.join(["danube-sweep", *words])
