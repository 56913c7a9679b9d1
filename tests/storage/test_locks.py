"""Whether a file's lock is held is seen without taking it away, from this process and from another."""

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from danube_sweep.storage.locks import is_held

HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1], fallback_to_soft=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_is_held_as_long_as_its_process_holds_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert is_held(file)
        assert is_held(file), "looking must not take it"
        holder.communicate("go\n")
    assert not is_held(file)


def test_a_file_that_is_not_there_is_not_held_and_not_made(tmp_path: Path) -> None:
    assert not is_held(tmp_path / ".lock")
    assert not (tmp_path / ".lock").exists()


def test_looking_leaves_the_lock_free(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    file.touch()
    assert not is_held(file)
    with FileLock(file, timeout=0, fallback_to_soft=False):
        assert is_held(file)
