"""Signals at random moments: the right exit code, no process left after ten seconds, the terminal as it was.

Each scene runs in a terminal of its own (a pty), and so do `watch` and `report`. SIGINT, SIGTERM and SIGHUP stop a run
at a step border (128 + the number; before the first step, and commands that do not train, may end by the signal
itself). SIGQUIT and SIGKILL end a process at once, SIGPIPE does nothing. Exit code 0 is right only where all was
written before the signal. What was stopped is resumed, and must reach the undisturbed result.
"""

import os
import pty
import signal
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

from hour import HOUR
from living import SEEN_S, alive, descendants, warm
from scenes import LONGEST_S, MADE, SCENES, Ended, Scene, Stage, prepare

SENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGKILL)
AT_ONCE = (signal.SIGQUIT, signal.SIGKILL)
"""Nothing can be put in order after these."""
GONE_WITHIN_S = 10.0
DRAINED_S = 5.0
"""What was written last may not have been read yet."""
SOONER = (1.0, 0.5, 0.25)
READ = ["report", "sweep", "-o", "page.html", "--overwrite"]
WATCH = ["watch", "sweep", "--once"]
READERS = {"report": Scene(READ, READ, (), last="page.html"), "watch": Scene(WATCH, READ, (), last="sweep/report.html")}
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


@dataclass
class Signalled:
    """How a command ended in a terminal, and what it left behind; `early` if that was before its signal."""

    ended: Ended
    early: bool
    right: set[int]
    """The exit codes that the signal may have led to, by what was on disk when it was sent."""
    wrong: str | None = None


def play(stage: Stage, command: list[str], number: signal.Signals, wait_s: float, due: Callable[[], bool]) -> Signalled:
    """Runs a command in a terminal, and sends it a signal after a while, or once it is due."""
    ours, theirs = pty.openpty()
    before, said = termios.tcgetattr(theirs), bytearray()
    reader = threading.Thread(target=_drain, args=(ours, said), daemon=True)
    reader.start()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = warm.popen("-m", "danube_sweep", *command, cwd=stage.here, env=stage.environment(), **streams)
    _until(lambda: process.poll() is not None or due(), wait_s)
    codes = right(stage, number)
    offspring = descendants(process.pid)
    early = process.poll() is not None
    process.send_signal(number)
    codes |= right(stage, number)  # what was written meanwhile
    if number is signal.SIGPIPE:
        _until(lambda: process.poll() is not None, SEEN_S)
    if not _until(lambda: process.poll() is not None, LONGEST_S):
        process.kill()
        return Signalled(Ended(-9, said.decode(errors="replace")), early, codes, f"ran on for {LONGEST_S:.0f} s")
    wrong = None
    if not _until(lambda: not alive(offspring), GONE_WITHIN_S):
        wrong = f"processes {alive(offspring)} were there {GONE_WITHIN_S:.0f} s later"
    elif number in AT_ONCE:
        pass
    elif termios.tcgetattr(theirs) != before:
        wrong = "the terminal is not as it was"
    elif not _until(lambda: said.count(HIDDEN) <= said.count(SHOWN), DRAINED_S):
        wrong = f"the cursor is hidden, with exit code {process.returncode}: {said[-300:].decode(errors='replace')}"
    os.close(theirs)
    reader.join(1.0)
    os.close(ours)
    return Signalled(Ended(process.returncode, said.decode(errors="replace")), early, codes, wrong)


def right(stage: Stage, number: signal.Signals) -> set[int]:
    """The exit codes that a signal may lead to now, as what the command has written tells."""
    begun = any((stage.here / MADE).rglob("metrics.csv"))
    last = stage.scene.last
    finished = (stage.here / last).is_file() if last else bool(stage.complete) and not stage.differs()
    if number is signal.SIGPIPE:
        return {0}
    stopped = {-number} if number in AT_ONCE else {128 + number}
    if number not in AT_ONCE and (finished or not begun):
        stopped |= {-number}
    return stopped | ({0} if finished else set())


def _drain(handle: int, said: bytearray) -> None:
    try:
        while more := os.read(handle, 1 << 16):
            said += more
    except OSError:  # the other end was closed
        return


def _until(ready: Callable[[], bool], wait_s: float) -> bool:
    end_s = time.monotonic() + wait_s
    while not ready():
        if time.monotonic() > end_s:
            return False
        time.sleep(SEEN_S)
    return True


def attack(stage: Stage, number: signal.Signals, wait_s: float, due: Callable[[], bool] = lambda: False) -> str | None:
    """Sends a signal after a while, sooner where the command had ended by then; returns what was wrong."""
    for part in SOONER:
        stage.begin()
        played = play(stage, stage.scene.command, number, part * wait_s, due)
        if not played.early:
            break
    if played.wrong or played.early:
        return played.wrong or "it had ended before every signal"
    ended = played.ended
    if ended.code not in played.right or "Traceback" in ended.said:
        return f"exit code {ended.code}, not {' or '.join(map(str, sorted(played.right)))}: {ended.said[-1500:]}"
    return stage.afterwards(done=ended.code == 0)


def siege(scale: float, place: Path) -> int:
    """Each signal once for each of the commands at scale 1, while the undisturbed command would last."""
    start, found = prepare(place / "start"), 0
    for name, scene in {**SCENES, **READERS}.items():
        if not HOUR.begins(f"signals to {name}"):
            continue
        stage = Stage(scene, start, place / name.replace(" ", "-"))
        sent = SENT[:: max(1, round(1 / min(scale, 1.0)))]
        for turn, number in product(range(max(1, round(scale))), sent):
            if not HOUR.begins(f"{number.name} to {name}"):
                continue
            wait_s = Random(f"{name}/{number}/{turn}").uniform(0.0, stage.seconds)
            wrong = attack(stage, number, wait_s)
            print(f"{name:17}{number.name:8} after {wait_s:4.1f} s: {wrong or 'well ended'}", flush=True)
            found += wrong is not None
    return found
