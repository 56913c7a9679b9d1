"""A clock of the wall that jumps back and forth while commands run, by Debian's libfaketime."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JUMPS = ("-400d", "+0", "+400d", "+0")
EVERY_S = 0.1
SLEEP = """import select, time
time.sleep = lambda seconds: (select.select([], [], [], seconds), None)[1]
"""
"""For every Python process: libfaketime 0.9.10 refuses the system call that Python sleeps by."""
SPREAD = """import time
seen = []
for _ in range(10):
    seen.append(time.time())
    time.sleep(0.1)
print(max(seen) - min(seen))
"""


def library() -> Path | None:
    """libfaketime, if it is installed (`make clock` does that)."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@contextmanager
def jumping(place: Path) -> Iterator[dict[str, str]]:
    """The environment variables of commands whose time jumps by 400 days, ten times a second; `place` is a folder.

    Clocks that count from the start of the machine go on as they are.
    """
    file, ended = place / "clock", threading.Event()

    def jump() -> None:
        turn = 0
        while not ended.wait(EVERY_S):
            _set(file, JUMPS[turn % len(JUMPS)])
            turn += 1

    _set(file, "+0")
    (place / "sitecustomize.py").write_text(SLEEP)
    thread = threading.Thread(target=jump, daemon=True)
    thread.start()
    variables = {
        "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    try:
        _check_jumps(variables)
        yield variables
    finally:
        ended.set()
        thread.join()


def _check_jumps(variables: dict[str, str]) -> None:
    # The linker only warns of a library that it cannot load.
    done = subprocess.run(
        [sys.executable, "-c", SPREAD], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    if float(done.stdout) < 24 * 3600:
        raise RuntimeError(f"the clock does not jump: {done.stderr}")


def _set(file: Path, offset: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(f"{offset}\n")
    os.replace(new, file)
