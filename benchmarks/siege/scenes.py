"""Commands that are played again and again under attack, and what tells whether they still reach their result."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from kills import TRIAL, meaning, same
from living import descendants

from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import clocks  # noqa: F401, for surroundings
import warm

NEAR = 1e-5
LONGEST_S = 300.0
"""A command that runs on for longer hangs."""
MADE = "made"
ERROR = "danube-sweep: error: "
BEFORE = ("rows.csv", "out.csv", "soft.csv", "sweep/sweep.json", "best/ensemble.json")
"""What is there before a command, and stays as it was or becomes what the command writes."""
SHORT = [
    *(one for one in TRIAL if not one.startswith(("data.rows", "data.max_length", "trainer.max_steps"))),
    *("data=table", "head=sequence", "data.path=rows.csv", "data.max_length=24", "trainer.max_steps=4"),
    *("trainer.validate_every=2", "sweep.disk_wait_s=1", "sweep.baseline=none"),
]


@dataclass(frozen=True)
class Scene:
    """A command, what goes on where it ended, and the files besides trials that it writes, always with the same bytes.

    Until there is a trial or a sweep to go on with, the command itself is repeated.
    """

    command: list[str]
    again: list[str]
    files: tuple[str, ...] = ("out.csv",)
    once: bool = False
    """Whether the command is refused where it has ended."""
    last: str | None = None
    """The one file that a command that trains nothing writes at its end, with other bytes each time."""
    drawn: bool = False
    """Whether trials follow from the results of others: after one that failed, others are drawn."""


PREDICT = ["predict", "sweep", "rows.csv", "-o", "out.csv", "--overwrite"]
IN_PARTS = ["predict", "best", "many.csv", *PREDICT[3:]]
LABEL = ["label", "sweep", "rows.csv", "-o", "soft.csv", "--overwrite"]
ENSEMBLE, SOUP, REFIT = ([one, "sweep", "-o", MADE] for one in ("ensemble", "soup", "refit"))
WEIGHTS = f"{MADE}/adapter/adapter_model.safetensors"
RESUME = ["resume", MADE, "--retry", "all"]
PACK = ["-m", f"hydra.sweep.dir={MADE}", *SHORT, "sweep.pack=2", "seed=0,1"]
SEARCH = ["-m", f"hydra.sweep.dir={MADE}", "hydra/sweeper=optuna", *SHORT, "sweep.trials=3", "sweep.pack=1"]
SCENES = {
    "run": Scene([f"hydra.run.dir={MADE}", *SHORT], RESUME[:2]),
    "packed sweep": Scene(PACK, RESUME),
    "search": Scene([*SEARCH, "optimizer.lr=interval(1e-4,1e-2)"], RESUME, drawn=True),
    "predict": Scene(PREDICT, PREDICT),
    "predict in parts": Scene(IN_PARTS, IN_PARTS),
    "shared sweep": Scene([*PACK, "sweep.workers=2", "sweep.lock=lease", "sweep.lease_s=10"], RESUME),
    "two ranks": Scene([f"hydra.run.dir={MADE}", *SHORT, "device.count=2"], RESUME[:2]),
    "refit": Scene(REFIT, RESUME[:2], (WEIGHTS, f"{MADE}/refit.json")),
    "soup": Scene(SOUP, SOUP, (WEIGHTS, f"{MADE}/soup.json"), once=True),
    "ensemble": Scene(ENSEMBLE, ENSEMBLE, (f"{MADE}/ensemble.json", f"{MADE}/predictions.parquet")),
    "label": Scene(LABEL, LABEL, ("soft.csv",)),
}
"""They begin in a folder with rows.csv, many.csv, a finished sweep (`sweep`), its ensemble (`best`), and older
predictions (out.csv) and labels (soft.csv)."""


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


class Stage:
    """A scene in a folder of its own, `here`, that begins as a copy of `start`; `complete` its undisturbed end."""

    def __init__(self, scene: Scene, start: Path, place: Path) -> None:
        self.scene, self.start, self.here = scene, start, place / "here"
        place.mkdir(parents=True)
        self.begin()
        began_s = time.monotonic()
        ended = self.play(scene.command)
        self.seconds = time.monotonic() - began_s
        if ended.code:
            raise RuntimeError(f"undisturbed: exit code {ended.code}: {ended.said}")
        self.complete = outcome(self.here, scene.files)

    def begin(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.start, self.here)

    def environment(self, **more: object) -> dict[str, str]:
        cache = {"DANUBE_SWEEP_CACHE": str(self.here / "cache")}
        return {**os.environ, **cache, **{name: str(value) for name, value in more.items()}}

    def play(self, command: list[str], **more: object) -> Ended:
        """Runs a command to its end, with more environment variables."""
        return self.ended("-m", "danube_sweep", *command, env=self.environment(**more))

    def ended(self, *words: str, env: dict[str, str]) -> Ended:
        """What a forked Python does with these words in the scene's folder."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return to_its_end(warm.popen(*words, cwd=self.here, env=env, **pipes))

    def after(self, disturbed: Ended, *more: str) -> str | None:
        """Judges how a disturbed command ended, goes on undisturbed, and returns what was wrong.

        `more`: words of the command that goes on.
        """
        return badly_ended(disturbed) or self.afterwards(*more, done=disturbed.code == 0)

    def afterwards(self, *more: str, done: bool) -> str | None:
        """Judges what a disturbed command left, goes on undisturbed, and returns what was wrong."""
        if done and (wrong := self.differs()):
            return wrong
        if changed := [name for name in BEFORE if not self._whole(name)]:
            return f"{changed[0]} is not what it was"
        if self.scene.once and not self.differs():
            return self._leftovers()
        missed = self.scene.drawn and self._failed()
        begun = any((self.here / MADE / name).is_file() for name in ("config.yaml", "sweep.json"))
        again = [*self.scene.again, *more] if begun else self.scene.command
        ended = self.play(again)
        if ended.code:
            return f"{' '.join(again[:2])} afterwards: exit code {ended.code}: {ended.said[-500:]}"
        return self.differs(others=missed) or self._leftovers()

    def _failed(self) -> bool:
        """Whether a trial of the sweep has ended without finishing."""
        entries = SweepFolder(self.here / MADE).entries() if (self.here / MADE / "sweep.json").exists() else []
        results = [entry.folder.read_result() for entry in entries]
        return any(result is not None and result.get("state") != "finished" for result in results)

    def differs(self, *, others: bool = False) -> str | None:
        """What is not as the undisturbed command leaves it; with `others`, as many other trials may stand for some."""
        found = outcome(self.here, self.scene.files)
        if others and len(found) == len(self.complete):
            found = {**self.complete, **{name: found[name] for name in found if name in self.complete}}
        wrong = [name for name, was in self.complete.items() if name not in found or not same(found[name], was, NEAR)]
        return f"not as undisturbed: {', '.join(wrong)}" if wrong else None

    def _whole(self, name: str) -> bool:
        """Whether a file is as it was at the start, if at all, or as the undisturbed command leaves it."""
        if not (self.start / name).is_file():
            return True
        return (self.here / name).read_bytes() in ((self.start / name).read_bytes(), self.complete.get(name))

    def _leftovers(self) -> str | None:
        kinds = (self.here.rglob("*.tmp"), self.here.glob("*.parts"))
        found = [str(file.relative_to(self.here)) for file in chain(*kinds) if "cache" not in file.parts]
        return f"left behind: {', '.join(found)}" if found else None


def to_its_end(process: subprocess.Popen[str]) -> Ended:
    """Waits for a command; one that hangs is killed with its offspring."""
    try:
        out, errors = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return Ended(-signal.SIGKILL, f"ran on for {LONGEST_S:.0f} s")
    return Ended(process.returncode, errors + out)


def badly_ended(ended: Ended) -> str | None:
    """A traceback, an exit code that is none of ours, or an end other than in one line of an error."""
    if "Traceback" in ended.said or ended.code not in (0, 1, 2):
        return f"exit code {ended.code}: {ended.said[-1500:]}"
    lines = sum(line.startswith(ERROR) for line in ended.said.splitlines())
    if lines != (ended.code != 0):
        return f"exit code {ended.code} with {lines} lines of an error: {ended.said[-1500:]}"
    return None


def outcome(here: Path, files: Sequence[str]) -> dict[str, Any]:
    """What a scene is judged by: each finished trial's meaning, and its files as written."""
    made = here / MADE
    single = [made] if (made / "config.yaml").exists() else []
    folders = [entry.path for entry in SweepFolder(made).entries()] if (made / "sweep.json").exists() else single
    found: dict[str, Any] = {name: (here / name).read_bytes() for name in files if (here / name).is_file()}
    for place in folders:
        if (RunFolder(place).read_result() or {}).get("state") == "finished":
            found[place.name] = meaning(RunFolder(place))
    return found


def rows(start: Path) -> Path:
    """Makes a folder with the rows and the older outputs that the scenes begin with."""
    start.mkdir()
    words = ("good", "fine", "bad", "poor", "dull", "kind")
    lines = [
        f"{words[row % 6]} {words[row % 4]} thing {row},{'no' if 2 <= row % 6 <= 4 else 'yes'}" for row in range(32)
    ]
    for name, count in (("rows.csv", 1), ("many.csv", 66)):  # the answers to many are kept in two parts
        (start / name).write_text("\n".join(["text,label", *lines * count]) + "\n")
    for name in ("out.csv", "soft.csv"):
        (start / name).write_text("id,yes\n0,0.5\n")
    return start


def prepare(start: Path) -> Path:
    """Makes what the scenes begin with."""
    rows(start)
    environment = {**os.environ, "DANUBE_SWEEP_CACHE": str(start / "cache")}
    several = ["-m", "hydra.sweep.dir=sweep", *SHORT, "sweep.pack=2", "seed=0,1"]
    for command in (several, ["ensemble", "sweep", "-o", "best", "--method", "mean"]):
        ran = warm.run("-m", "danube_sweep", *command, cwd=start, env=environment)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
    for place in start.glob("cache/*/"):
        shutil.rmtree(place)  # a command makes its own; what stays says that the sweep was made here
    return start
