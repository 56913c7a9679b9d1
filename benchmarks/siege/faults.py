"""System calls on files fail, one in each command: is what was there kept, the exit honest, the resumed run equal?

A preloaded library (failing_calls.c) numbers the calls of a command on the files of its working directory. Calls of one
kind on one file are one site. The first and the last call of each site fail, in a command of their own, with each of
ENOSPC, EIO, EACCES and EROFS; at scale 1 a share of them does (SHARES). Such a command must end with an exit code other
than 0 and one line, or reach the undisturbed result. Then it is repeated or resumed without a fault, and must reach
that result; predictions that were there stay whole.
"""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scenes import SCENES, Ended, Scene, Stage, prepare, warm

LIBRARY = Path(__file__).with_name("failing_calls.c")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EROFS")
SHARES = {"run": 0.5, "predict": 1.0, "predict in parts": 1.0, "ensemble": 1.0, "label": 0.5, "soup": 0.5}
SHARE = 0.1
"""The share of a scene's sites that is tried at scale 1; SHARE for scenes that are not named."""


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
        self.begin()
        failing = {"FAILING_CALL": call.number, "FAILING_ERRNO": getattr(errno, error)}
        disturbed = self.play(self.scene.command, **failing)
        self.missed += all((one.number, one.site) != (call.number, call.site) for one in self._logged())
        return self.after(disturbed)

    def _logged(self) -> list[Call]:
        parts = [line.split(" ", 2) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return sorted((Call(int(one[0]), one[1], one[2]) for one in parts), key=lambda call: call.number)


def sites(calls: Iterable[Call], share: float) -> list[Call]:
    """The first and the last call of each site, or a share of them."""
    by_site: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        by_site.setdefault(call.site, []).append(call)
    ends = [call for same in by_site.values() for call in dict.fromkeys((same[0], same[-1]))]
    return sorted(Random(0).sample(ends, max(1, round(len(ends) * min(share, 1.0)))), key=lambda call: call.number)


def compiled(place: Path) -> Path | None:
    """The library that is preloaded; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = place / "failing_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, LIBRARY, "-ldl"], check=True)
    return library


def siege(scale: float, place: Path) -> int:
    """At scale 1: every site of predictions and ensembles, half of runs, labels and soups, a tenth of others."""
    library = compiled(place)
    if library is None:
        print("skipped: no C compiler (cc)", flush=True)
        return 0
    os.environ["LD_PRELOAD"] = str(library)  # for the process that the commands are forked from: it starts anew
    warm._server.cache_clear()
    start, found = prepare(place / "start"), 0
    for name, scene in SCENES.items():
        stage = FaultyStage(scene, start, place / name.replace(" ", "-"))
        tried = sites(stage.calls, SHARES.get(name, SHARE) * scale)
        escaped = sum(_told(stage, call, error) for call in tried for error in ERRORS)
        faults = len(tried) * len(ERRORS) - stage.missed
        elsewhere = f", {stage.missed} more hit another call" if stage.missed else ""
        counted = f"{len(tried):4} calls of {len(stage.calls)}, {faults} faults"
        print(f"{name:17}{counted}: {escaped} found{elsewhere}", flush=True)
        found += escaped
    del os.environ["LD_PRELOAD"]
    warm._server.cache_clear()
    return found


def _told(stage: FaultyStage, call: Call, error: str) -> bool:
    """Whether a fault has done harm; prints how."""
    wrong = stage.attack(call, error)
    if wrong is not None:
        print(f"{call.name} {call.path} (call {call.number}) fails with {error}: {wrong}", flush=True)
    return wrong is not None
