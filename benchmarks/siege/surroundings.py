"""Odd surroundings: no home, few open files, an old locale, a clock that jumps, a disk that is nearly full.

A command must reach the result that it has elsewhere, or refuse in one line and reach it later, in plain surroundings.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hour import HOUR
from scenes import SCENES, Ended, Scene, Stage, badly_ended, clocks, rows, to_its_end

FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from danube_sweep.cli.main import main
sys.argv[0] = "danube-sweep"
raise SystemExit(main())
"""
NO_CACHE: dict[str, str | None] = {"DANUBE_SWEEP_CACHE": None, "XDG_CACHE_HOME": None}
"""Variables that would name another place than the home for caches."""
HOMES: dict[str, dict[str, str | None]] = {
    "no HOME": {"HOME": None, **NO_CACHE},
    "a HOME that cannot be written": {"HOME": "/proc", **NO_CACHE},
}
"""In plain surroundings nothing says then that a folder was made here, so `resume` is given --trust."""
VARIABLES: dict[str, dict[str, str | None]] = {
    **HOMES,
    "TMPDIR is missing": {"TMPDIR": "/nowhere/at/all"},
    "LC_ALL=C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "a terminal of 20 columns": {"COLUMNS": "20", "TERM": "dumb"},
}
PLAIN = {name: SCENES[name] for name in ("run", "packed sweep", "search")}
"""Whatever commands are chosen for the other attacks."""
LEFT_KIB = 200
"""What a nearly full disk has left."""


def siege(scale: float, place: Path) -> int:
    """A run, a packed sweep and a search in each of the surroundings; below scale 1, the run alone."""
    start, found = rows(place / "start"), 0
    for name in PLAIN if scale >= 1.0 else ("run",):
        if not HOUR.begins(f"surroundings of {name}"):
            continue
        stage = Stage(PLAIN[name], start, place / name.replace(" ", "-"))
        for about, play in played(name).items():
            if HOUR.begins(f"{name}: {about}"):
                found += _said(name, about, play(stage))
    return found


def played(name: str) -> dict[str, Callable[[Stage], str | None]]:
    """What is played of a scene: the surroundings, each with the function that tells what was wrong in them."""

    def small_disk(stage: Stage) -> str | None:
        return _small_disk(PLAIN[name], stage, stage.here.parent / "disk")

    def jumps(stage: Stage) -> str | None:
        if clocks.library() is None:
            return "skipped: no libfaketime (make clock installs it)"
        return _tried(stage, _jumps)

    return {
        **{
            about: partial(_tried, play=partial(_with, variables=given), more=["--trust"] if about in HOMES else [])
            for about, given in VARIABLES.items()
        },
        "64 open files": partial(_tried, play=_few_files),
        "a clock that jumps": jumps,
        f"a disk with {LEFT_KIB} KiB left": small_disk,
    }


def _said(name: str, about: str, wrong: str | None) -> int:
    skipped = wrong is not None and wrong.startswith("skipped")
    print(f"{name:17}{about}: {wrong or 'as elsewhere'}", flush=True)
    return int(wrong is not None and not skipped)


def _tried(stage: Stage, play: Callable[[Stage], Ended], more: Sequence[str] = ()) -> str | None:
    stage.begin()
    return stage.after(play(stage), *more)


def _with(stage: Stage, variables: dict[str, str | None]) -> Ended:
    environment = stage.environment(**{name: value for name, value in variables.items() if value is not None})
    for name, value in variables.items():
        if value is None:
            environment.pop(name, None)
    return stage.ended("-m", "danube_sweep", *stage.scene.command, env=environment)


def _few_files(stage: Stage) -> Ended:
    return stage.ended("-c", FEW_FILES, *stage.scene.command, env=stage.environment())


def _jumps(stage: Stage) -> Ended:
    """The wall clock jumps by 400 days, back and forth, ten times a second, in a process that preloads libfaketime."""
    place = stage.here.parent / "clock"
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "danube_sweep", *stage.scene.command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with clocks.jumping(place) as clock:
        return to_its_end(subprocess.Popen(command, cwd=stage.here, env=stage.environment(**clock), text=True, **pipes))


def _small_disk(scene: Scene, stage: Stage, place: Path) -> str | None:
    here = place / "here"
    here.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", here], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        return f"skipped: {mounted.stderr.strip()}"
    elsewhere, stage.here = stage.here, here
    try:
        subprocess.run(["cp", "-r", f"{stage.start}/.", here], check=True)
        usage = shutil.disk_usage(here)
        subprocess.run(["mount", "-o", f"remount,size={usage.used // 1024 + LEFT_KIB}k", here], check=True)
        first = stage.play(scene.command)
        if (wrong := badly_ended(first)) or first.code == 0:
            return wrong or "there was room for all of it"
        subprocess.run(["mount", "-o", "remount,size=200m", here], check=True)
        return stage.after(first)
    finally:
        stage.here = elsewhere
        subprocess.run(["umount", here], check=False)
