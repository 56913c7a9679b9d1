"""kill -9 inside a save: the process that is about to rename a whole file into its place dies instead.

failing_calls.c does that at one call of a command: what is written is on disk under its temporary name, and the old
file is still there. The command is then resumed or repeated undisturbed, and must reach the undisturbed result. At
scale 1 each rename and each link of the commands in PLAYED is such a moment once.
"""

import signal
from pathlib import Path
from random import Random

from faults import Call, FaultyStage, preloaded
from hour import HOUR
from scenes import SCENES, badly_ended, rows

PLAYED = ("run", "packed sweep", "search", "shared sweep")
SAVES = ("rename", "link")


def attack(stage: FaultyStage, call: Call) -> str | None:
    """Kills the process that makes the call, goes on, and returns what was wrong."""
    disturbed = stage.strike(call, FAILING_SIGNAL=int(signal.SIGKILL))
    if disturbed.code != -signal.SIGKILL and (wrong := badly_ended(disturbed)):  # a trial's process was killed
        return wrong
    return stage.afterwards(done=disturbed.code == 0)


def siege(scale: float, place: Path) -> int:
    """Every save of a run, a packed sweep, a search and a sweep of two workers at scale 1, else a share of them."""
    found = 0
    with preloaded(place) as library:
        if library is None:
            return 0
        start = rows(place / "start")
        chosen = [name for name in PLAYED if name in SCENES]
        for turn, name in enumerate(chosen):
            if not HOUR.begins(f"saves of {name}"):
                continue
            stage = FaultyStage(SCENES[name], start, place / name.replace(" ", "-"))
            saves = [call for call in stage.calls if call.name in SAVES]
            random = Random(f"{name}/{HOUR.seed}")
            drawn = random.sample(saves, max(1, round(len(saves) * min(scale, 1.0))))
            with HOUR.part(1 / (len(chosen) - turn)):
                found += _each(name, stage, drawn, len(saves))
    return found


def _each(name: str, stage: FaultyStage, drawn: list[Call], whole: int) -> int:
    escaped = tried = 0
    for call in drawn:
        if HOUR.over():
            HOUR.left_out.append(f"{len(drawn) - tried} saves of {name}")
            break
        tried += 1
        wrong = attack(stage, call)
        if wrong is not None:
            print(f"killed at {call.name} {call.path} (call {call.number}): {wrong}", flush=True)
        escaped += wrong is not None
    escaped += (unhit := stage.hit_none(tried))
    hits = f"{tried} of {whole} saves, {tried - stage.missed} kills"
    print(f"{name:17}{hits}: {escaped} found{', as no kill hit its call' if unhit else ''}", flush=True)
    return escaped
