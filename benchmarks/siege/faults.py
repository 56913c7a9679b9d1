"""System calls on files fail, one in each command: is what was there kept, the exit honest, the resumed run equal?

A preloaded library (failing_calls.c) numbers the calls of a command on the files of its working directory. Calls of one
kind on one file are one site. The first and the last call of a site fail, in a command of their own, with each of
ENOSPC, EIO, EACCES and EROFS. They are drawn in an order of the seed: at scale 1 all calls of the commands in WHOLE, a
share of others (SHARES), until the command's share of the time is over. How many were tried is printed. A run, a packed
sweep and a search have 3,620 such faults, each with two commands: an hour does not do.

Such a command must end with an exit code other than 0 and one line, or reach the undisturbed result. Then it is
repeated or resumed without a fault, and must reach that result; predictions that were there stay whole.
"""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from hour import HOUR
from scenes import SCENES, Ended, Scene, Stage, prepare, warm

LIBRARY = Path(__file__).with_name("failing_calls.c")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS")
WHOLE = ("run", "packed sweep", "search", "predict")
"""Commands of which every site is to be tried at scale 1; each has three times the time of another one."""
SHARES = {**dict.fromkeys(WHOLE, 1.0), "predict in parts": 1.0, "ensemble": 1.0, "label": 0.5, "soup": 0.5}
SHARE = 0.1
"""The share of a scene's sites that is to be tried at scale 1; SHARE for scenes that are not named."""


@dataclass(frozen=True)
class Call:
    """A system call of a command: its number, its name, and its file, as seen from the working directory."""

    number: int
    name: str
    path: str

    @property
    def site(self) -> tuple[str, str]:
        """The same for the same file of another trial, and for every temporary name."""
        return self.name, re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", re.sub(r"\.tmp\w{6}$", ".tmp#", self.path))


class FaultyStage(Stage):
    """A scene whose calls are counted, so that one of them can fail; `calls` are those of the undisturbed command."""

    def __init__(self, scene: Scene, start: Path, place: Path) -> None:
        self.count, self.log = place / "count", place / "log"
        super().__init__(scene, start, place)
        self.calls = self._logged()
        self.missed = 0
        """Faults that hit no call, or one of another site: processes that wait for each other count differently."""

    def play(self, command: list[str], **more: object) -> Ended:
        for file in (self.count, self.log):
            file.unlink(missing_ok=True)
        counted = {"FAILING_ROOT": self.here, "FAILING_COUNT": self.count, "FAILING_LOG": self.log}
        return super().play(command, **counted, **more)

    def attack(self, call: Call, error: str) -> str | None:
        """Lets a call fail and goes on without the fault; returns what was wrong with that."""
        # Where the cache did not take it, the folder counts as made elsewhere.
        elsewhere = call.path.endswith("/made_here") and self.scene.again[0] == "resume"
        return self.after(self.strike(call, FAILING_ERRNO=getattr(errno, error)), *["--trust"] * elsewhere)

    def strike(self, call: Call, **how: object) -> Ended:
        """The command, in which a call fails or its process dies."""
        self.begin()
        disturbed = self.play(self.scene.command, FAILING_CALL=call.number, **how)
        self.missed += all((one.number, one.site) != (call.number, call.site) for one in self._logged())
        return disturbed

    def hit_none(self, tried: int) -> bool:
        """Whether attacks were tried and none of them hit its call: they have shown nothing."""
        return tried > 0 and self.missed >= tried

    def _logged(self) -> list[Call]:
        parts = [line.split(" ", 2) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return sorted((Call(int(one[0]), one[1], one[2]) for one in parts), key=lambda call: call.number)


def sites(calls: Iterable[Call], share: float, seed: object = 0) -> list[Call]:
    """The first and the last call of each site, or a share of them, in an order that the seed draws."""
    by_site: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        by_site.setdefault(call.site, []).append(call)
    ends = [call for same in by_site.values() for call in dict.fromkeys((same[0], same[-1]))]
    return Random(seed).sample(ends, max(1, round(len(ends) * min(share, 1.0))))


def compiled(place: Path) -> Path | None:
    """The library that is preloaded; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = place / "failing_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, LIBRARY, "-ldl"], check=True)
    return library


@contextmanager
def preloaded(place: Path) -> Iterator[Path | None]:
    """While it lasts, commands have the library; prints why if there is none."""
    library = compiled(place)
    if library is None:
        print("skipped: no C compiler (cc)", flush=True)
        yield None
        return
    os.environ["LD_PRELOAD"] = str(library)
    try:
        with warm.started_anew():
            yield library
    finally:
        del os.environ["LD_PRELOAD"]


def siege(scale: float, place: Path) -> int:
    """The first and the last call of each site, or the share of them that scale and time allow."""
    found = 0
    with preloaded(place) as library:
        if library is None:
            return 0
        start = prepare(place / "start")
        parts = {name: 3 if name in WHOLE else 1 for name in SCENES}
        for name, scene in SCENES.items():
            share = parts[name] / sum(parts.values())
            del parts[name]
            if HOUR.begins(f"faults of {name}"):
                with HOUR.part(share):
                    stage = FaultyStage(scene, start, place / name.replace(" ", "-"))
                    found += _each(name, stage, min(1.0, SHARES.get(name, SHARE) * scale))
    return found


def _each(name: str, stage: FaultyStage, share: float) -> int:
    """Lets the calls of a scene fail while there is time; prints what was tried, and returns how much was found."""
    drawn, tried, escaped = sites(stage.calls, share, f"{name}/{HOUR.seed}"), 0, 0
    for call in drawn:
        if HOUR.over():
            HOUR.left_out.append(f"{len(drawn) - tried} calls of {name}")
            break
        escaped += sum(_told(stage, call, error) for error in ERRORS)
        tried += 1
    unhit = stage.hit_none(tried * len(ERRORS))
    whole, faults = len(sites(stage.calls, 1.0)), tried * len(ERRORS) - stage.missed
    elsewhere = f", {stage.missed} more hit another call" if stage.missed else ""
    why = ", as no fault hit its call" if unhit else ""
    counted = f"{tried:4} of {whole} first and last calls ({tried / whole:.0%}), {faults} faults"
    print(f"{name:17}{counted}: {escaped + unhit} found{why}{elsewhere}", flush=True)
    return escaped + unhit


def _told(stage: FaultyStage, call: Call, error: str) -> bool:
    """Whether a fault has done harm; prints how."""
    wrong = stage.attack(call, error)
    if wrong is not None:
        print(f"{call.name} {call.path} (call {call.number}) fails with {error}: {wrong}", flush=True)
    return wrong is not None
