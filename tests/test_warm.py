"""A forked process does what one started by `subprocess` does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import warm

SCRIPTS = {
    "says": "import os, sys; print(sys.argv, os.getcwd(), sys.path[0] in ('', os.getcwd())); sys.stderr.write('no')",
    "code": "import sys; sys.exit(7)",
    "words": "import sys; sys.exit('one line')",
    "interrupted": "raise KeyboardInterrupt",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "at exit": "import atexit; atexit.register(print, 'last'); print('first')",
    "a thread": "import threading, time; threading.Timer(0.1, print, ['later']).start(); print('now')",
    "blocked": "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "open files": "import os; print([int(name) for name in os.listdir('/proc/self/fd') if int(name) < 900][:-1])",
    "environment": "import os; print(sorted(os.environ))",
    "as main": "import sys; print(__name__, sys.modules['__main__'].__dict__ is globals())",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_ends_as_in_a_process_started_the_usual_way(name: str, tmp_path: Path) -> None:
    options = {"cwd": tmp_path, "env": {**os.environ, "MORE": "1"}, "stdin": subprocess.DEVNULL}
    words = ["-c", SCRIPTS[name], "a", "b"]
    usual = subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)
    forked = warm.run(*words, **options)
    assert (forked.returncode, forked.stdout) == (usual.returncode, usual.stdout)
    assert forked.stderr.splitlines()[-1:] == usual.stderr.splitlines()[-1:]


def stack_of_a_worker() -> tuple[int, bool]:
    return os.getppid(), "torch" in sys.modules


def test_workers_of_joblib_are_its_children_too() -> None:
    assert joblib.Parallel(n_jobs=2)([joblib.delayed(stack_of_a_worker)()]) == [(os.getpid(), True)]


def test_it_is_a_child_of_this_process_with_the_stack_imported_and_nothing_of_the_tests() -> None:
    script = "import os, sys; print(os.getppid(), 'torch' in sys.modules, 'pytest' in sys.modules)"
    assert warm.run("-c", script).stdout == f"{os.getpid()} True False\n"


def test_it_reads_what_is_written_and_dies_of_a_signal() -> None:
    reader = warm.popen(
        "-c", "import sys; print(sys.stdin.readline(), flush=True); sys.stdin.read()", stdin=subprocess.PIPE
    )
    assert reader.stdin is not None and reader.stdout is not None
    reader.stdin.write("word\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "word\n"
    reader.send_signal(signal.SIGKILL)
    reader.communicate()
    assert reader.returncode == -signal.SIGKILL


def test_a_module_and_the_places_of_pythonpath_are_found(tmp_path: Path) -> None:
    (tmp_path / "of_its_own.py").write_text("import sys; print(__name__, sys.argv[1:])")
    done = warm.run("-m", "of_its_own", "a", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout == "__main__ ['a']\n", done.stderr


def test_its_forkserver_is_warm_too(tmp_path: Path) -> None:
    script = (
        "import multiprocessing, os, sys\n"
        "from multiprocessing import forkserver\n"
        "context = multiprocessing.get_context('forkserver')\n"
        "process = context.Process(target=print, args=('from the child',))\n"
        "process.start(); process.join()\n"
        "server = forkserver._forkserver._forkserver_pid\n"
        "command = open(f'/proc/{server}/cmdline').read().split(chr(0))\n"
        "print(process.exitcode, os.waitpid(server, os.WNOHANG), command[1])"
    )
    done = warm.run("-c", script, cwd=tmp_path)
    assert done.stdout.splitlines() == ["from the child", f"0 (0, 0) {warm.__file__}"], done.stderr
