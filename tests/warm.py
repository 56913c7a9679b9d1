"""Processes forked from one that has imported the stack: a `python -m …` or `python -c …` without 7 seconds of imports.

The workers of pytest-xdist are such processes too.

They are children of the test's process, as those of `subprocess` are: same exit codes, signals, pipes and working
directory. A process that they start through multiprocessing's forkserver or the test's own is forked from the same
stack. What depends on how a process starts (its imports, its environment's first look) needs `subprocess` itself.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing import util
from pathlib import Path
from typing import Any, cast

from execnet import gateway_base, gateway_io
from joblib.externals.loky.backend import fork_exec

from danube_sweep import composer
from danube_sweep.config import offered_options
from danube_sweep.report import importance

STACK = [
    "danube_sweep.cli.main",
    "danube_sweep.training.run",
    "danube_sweep.sweeping.start_sweep",
    "danube_sweep.sweeping.resume_sweep",
    "danube_sweep.report.collect",
    "danube_sweep.sweeping.execute.warm_tables",
    "bitsandbytes",
    "hydra",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "optuna",
    "peft",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "torchmetrics.functional.classification",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mistral.modeling_mistral",
    "wandb",
]
"""What the first process imports."""

FORKSERVER = "multiprocessing.forkserver"
WARM_PARENT = "warm parent"
"""The name, in /proc/PID/comm, of a process that is a forkserver by being forked."""
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_FORKING = threading.Lock()
_servers: list[socket.socket] = []
"""The ends of the processes that fork for this one; the last is asked."""
WORKER = "-u"
"""The word with which pytest-xdist starts a worker and nobody else anything."""
FIRST = "__the_first_warm__"
"""The name, in the modules of a forked process, under which this file stands as it forks for that process."""
OUT_OF_THE_WAY = 900
"""File descriptors from here on are none that a process asks for by number."""


class WarmPopen(subprocess.Popen[Any]):
    """`subprocess.Popen([sys.executable, *words])`, forked; takes text, cwd, env and the three streams."""

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        _, _, _, _, cwd, env, _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[:15]
        streams = [p2cread, c2pwrite, errwrite]
        given = {number: number if handle == -1 else handle for number, handle in enumerate(streams)}
        self.pid = _forked(given, args[1:], cwd=cwd, env=env)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def popen(*words: object, **options: Any) -> subprocess.Popen[str]:
    """`python WORDS…`, started: the words begin with `-m MODULE` or `-c CODE`."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    kind = WarmPopen if _can_fork() else subprocess.Popen
    return kind([sys.executable, *map(str, words)], text=True, **{**streams, **options})


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`python WORDS…`, waited for, with all it printed."""
    with popen(*words, **options) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class WarmIO(gateway_io.Popen2IOMaster):
    """What pytest-xdist talks to a worker through; the worker is forked."""

    def __init__(self, words: Sequence[str], execmodel: Any) -> None:
        self.popen = WarmPopen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        gateway_base.Popen2IO.__init__(self, self.popen.stdin, self.popen.stdout, execmodel=execmodel)


def fork_workers() -> None:
    """From now on the workers that pytest-xdist starts are forked: the stack is imported once for all of them."""
    if sys.platform == "linux":
        gateway_io.__dict__["Popen2IOMaster"] = WarmIO


@contextmanager
def warm_forkserver() -> Iterator[None]:
    """While it lasts, this process's forkserver and the workers of joblib are forked as well."""
    cold, cold_worker = util.spawnv_passfds, fork_exec.fork_exec

    def worker(command: Sequence[str], passed: Sequence[int], env: dict[str, str] | None = None) -> int:
        if command[1] != "-m" or not _can_fork():
            return int(cold_worker(command, passed, env))
        return _forked(
            {number: number for number in (0, 1, 2, *passed)}, command[1:], env={**os.environ, **(env or {})}
        )

    def spawn(path: bytes, args: Sequence[Any], passed: Sequence[int]) -> int:
        words = [os.fsdecode(word) for word in args]
        if FORKSERVER not in words[-1] or not _can_fork():
            return cold(path, args, passed)
        return _forked({number: number for number in (0, 1, 2, *passed)}, words[-2:])

    util.spawnv_passfds, fork_exec.fork_exec = spawn, worker
    try:
        yield
    finally:
        util.spawnv_passfds, fork_exec.fork_exec = cold, cold_worker


@contextmanager
def warm_importance() -> Iterator[None]:
    """While it lasts, the process in which a report weighs its keys is forked as well, with Optuna in it."""
    cold = vars(importance)["subprocess"]
    names = {
        **vars(subprocess),
        "Popen": lambda *words, **more: (WarmPopen if _can_fork() else cold.Popen)(*words, **more),
    }
    importance.__dict__["subprocess"] = types.SimpleNamespace(**names)
    try:
        yield
    finally:
        importance.__dict__["subprocess"] = cold


def _can_fork() -> bool:
    # The tests of GPUs look at which process initialises CUDA; elsewhere none is seen.
    return sys.platform == "linux" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""


# ----------------------------------------------------------------------------------------------- asking for a process


def _forked(handles: dict[int, int], words: Sequence[str], cwd: Any = None, env: Any = None) -> int:
    """The pid of a new child of this process that has `handles` (its number: ours) and runs `words`."""
    asked = {
        "words": [os.fsdecode(word) for word in words],
        "cwd": os.path.abspath(cwd or "."),
        "environment": dict(os.environ if env is None else env),
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "numbers": list(handles),
    }
    libc = ctypes.CDLL(None)
    with _FORKING:
        libc.prctl(SUBREAPER, 1)  # for the moment in which the process loses the parent that forked it
        try:
            server = _server()
            with os.fdopen(os.dup(server.fileno()), "rb") as answers:
                socket.send_fds(server, [b"."], list(handles.values()))
                server.sendall(json.dumps(asked).encode() + b"\n")
                return int(answers.readline())
        finally:
            libc.prctl(SUBREAPER, 0)


@contextmanager
def started_anew() -> Iterator[None]:
    """While it lasts, processes are forked from one that has the environment of now from its start."""
    _servers.append(_started())
    try:
        yield
    finally:
        _servers.pop().close()


def _server() -> socket.socket:
    if not _servers:
        _servers.append(_inherited() or _started())
    return _servers[-1]


def _inherited() -> socket.socket | None:
    first = sys.modules.get(FIRST)
    return None if first is None else cast(socket.socket, first._servers[-1])


def _started() -> socket.socket:
    ours, theirs = socket.socketpair()
    number = theirs.fileno()
    command, environment = [sys.executable, __file__, str(number)], {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.Popen(command, pass_fds=[number], cwd=Path(__file__).parent.parent, env=environment)
    theirs.close()
    return ours


# ------------------------------------------------------------------------------------------------- being that process


def serve(place: socket.socket) -> dict[str, Any]:
    """Forks until nobody asks any more; returns in each new process, with what that is to do."""
    while asked := _hear(place):
        ours, theirs = socket.socketpair()
        if middle := os.fork():
            os.waitpid(middle, 0)
            place.sendall(ours.recv(20) + b"\n")
            for handle in asked["handles"]:
                os.close(handle)
        elif os.fork():
            os._exit(0)
        else:
            place.close()
            theirs.sendall(str(os.getpid()).encode())
            ours.close()
            theirs.recv(1)  # ends when the server has seen `middle` go: now this is the child of who asked
        ours.close()
        theirs.close()
        if not middle:
            return asked
    os._exit(0)


def _hear(place: socket.socket) -> dict[str, Any] | None:
    dot, handles, _, _ = socket.recv_fds(place, 1, 20)
    if not dot:
        return None
    with os.fdopen(os.dup(place.fileno()), "rb") as words:
        asked: dict[str, Any] = json.loads(words.readline())
    return {**asked, "handles": handles}


def with_a_server(asked: dict[str, Any]) -> dict[str, Any]:
    """Returns twice: with what was asked for, and in a server of that process each time it asks for one itself."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        far = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY))
        ours.close()
        _servers[:] = [far]
        sys.modules[FIRST] = sys.modules[__name__]
        return asked
    ours.close()
    for handle in asked["handles"]:
        os.close(handle)
    return serve(theirs)


def become(asked: dict[str, Any]) -> None:
    """Takes over streams, working directory, environment and signals."""
    moved = [fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, OUT_OF_THE_WAY) for handle in asked["handles"]]
    os.closerange(3, OUT_OF_THE_WAY)
    for handle, number in zip(moved, asked["numbers"], strict=True):
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(write_through=unbuffered, line_buffering=unbuffered or sys.stdout.isatty())
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])


@contextmanager
def own_media() -> Iterator[None]:
    """A folder for wandb's tables of this process: the one of the first process goes when any forked one ends."""
    from wandb.sdk.data_types._private import MEDIA_TMP

    MEDIA_TMP._finalizer.detach()
    MEDIA_TMP.name = tempfile.mkdtemp("wandb-media")
    atexit.register(shutil.rmtree, MEDIA_TMP.name, ignore_errors=True)
    yield


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Ends the process as the interpreter would, but takes no half second to clear the stack away."""
    code: object = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def register_schemas() -> None:
    """Gives Hydra the schemas, for each forked process to find. What packages offer is looked for in each of them."""
    composer.register()
    offered_options.offers.cache_clear()


def leave_operators_alone() -> None:
    """A forked process that ends need not take back each operator that torch knows: that is half of its whole time."""
    for finalizer in weakref.finalize._registry:
        found = finalizer.peek()
        if found is not None and found[1].__module__ == "torch.library":
            finalizer.atexit = False


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as place:
        for name in STACK:
            importlib.import_module(name)
        register_schemas()
        leave_operators_alone()
        gc.collect()
        gc.freeze()
        asked = serve(place)
    if WORKER in asked["words"]:  # of pytest: what it starts has a server in turn
        asked = with_a_server(asked)
    if WORKER not in asked["words"] and FORKSERVER not in asked["words"][1]:
        asked = with_a_server(asked)
    if FORKSERVER in asked["words"][1]:
        Path("/proc/self/comm").write_text(WARM_PARENT)
    become(asked)
    kind, what, *more = [word for word in asked["words"] if word != WORKER]
    sys.argv = [kind, *more]
    named = [place for place in asked["environment"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:1] = [asked["cwd"], *(place for place in named if place not in sys.path[1:])]
    sys.modules["__main__"] = types.ModuleType("__main__")
    with nullcontext() if FORKSERVER in what else warm_forkserver(), warm_importance(), ended_at_once(), own_media():
        if kind == "-m":
            runpy._run_module_as_main(what)
        else:
            exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    main()
