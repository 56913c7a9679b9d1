"""The processes of this machine that belong to a command: its offspring, and who still holds a sweep's files."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import warm

KINDS = ("sweep", "warm parent", "trial")
GONE_WITHIN_S = 60.0
"""A warm parent whose sweep dies while it imports may import to the end: ten seconds, more on a busy machine."""
SEEN_S = 0.02


def processes() -> dict[int, list[int]]:
    """The processes that live, by their parent's number."""
    found: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, rest = file.read_text().split(" ", 1)
            state, parent = rest.rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found.setdefault(int(parent), []).append(int(pid))
    return found


def is_warm_parent(pid: int) -> bool:
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text() == f"{warm.WARM_PARENT}\n":
            return True
        return warm.FORKSERVER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def victims(sweeps: list[int]) -> dict[str, list[int]]:
    """Kind -> the processes of that kind that can be killed now."""
    children = processes()
    parents = [pid for sweep in sweeps for pid in children.get(sweep, []) if is_warm_parent(pid)]
    trials = [pid for parent in parents for pid in children.get(parent, [])]
    return dict(zip(KINDS, (sweeps, parents, trials), strict=True))


def still_there(folder: Path) -> list[int]:
    """The processes of a sweep that still have its folder or a log beside it open, a minute after its end."""
    end_s = time.monotonic() + GONE_WITHIN_S
    while (pids := writers(str(folder))) and time.monotonic() < end_s:
        time.sleep(SEEN_S)
    return pids


def writers(prefix: str) -> list[int]:
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        with suppress(OSError):
            if os.readlink(link).startswith(prefix):
                found.append(int(link.parts[2]))
    return found


def descendants(pid: int) -> list[int]:
    children = processes()
    found = list(children.get(pid, []))
    for one in found:
        found += children.get(one, [])
    return found


def alive(pids: list[int]) -> list[int]:
    living = {one for children in processes().values() for one in children}
    return [pid for pid in pids if pid in living]
