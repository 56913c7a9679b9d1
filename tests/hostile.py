"""Trials that misbehave, for the tests of what runs them: tasks by name, so that a process of its own can have one."""

import ctypes
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from danube_sweep.config.schema import Sweep
from danube_sweep.errors import GuardError, OutOfMemory, PackOutOfMemory
from danube_sweep.storage.files import read_json, write_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute import child_process, process_pool
from danube_sweep.sweeping.execute.messages import Asked, Failed, Job, Left, PackTrial, Started, Stepped, Validated

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of Linux."""
PIDS, COUNT, PACKS = "pids", "count", "packs"
"""Files in the sweep's folder: a process, a trial and a pack's seeds per line."""


class Tripwire:
    """The link of a trial; `act` happens before a message of `kind` leaves it."""

    def __init__(self, link: Any, kind: type, act: Callable[[], None]) -> None:
        self._link, self._kind, self._act = link, kind, act

    def send(self, message: object) -> None:
        if isinstance(message, self._kind):
            self._act()
        self._link.send(message)

    def recv(self) -> Any:
        return self._link.recv()

    def poll(self) -> bool:
        return bool(self._link.poll())


def note(job: Job, file: str, text: object) -> None:
    """Adds a line to a file of the sweep, in one write, so that none is lost however many processes do it."""
    handle = os.open(job.path.parent / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, f"{text}\n".encode())
    os.close(handle)


def lines(folder: Path, file: str) -> list[str]:
    """What `note` has added."""
    return (folder / file).read_text().splitlines() if (folder / file).is_file() else []


# ------------------------------------------------------------------------------------------------------ good tasks


def instant(job: Job, link: Any) -> None:
    """A trial that finishes at once, with the least that a result holds."""
    note(job, COUNT, job.path.name)
    write_json(RunFolder(job.path).result, {"state": "finished", "validation": {"log_loss": 1.0}})


def until_stopped(job: Job, link: Any) -> None:
    """Trains, and waits at the first validation until the sweep asks it to stop."""
    child_process.train_task(job, Tripwire(link, Validated, wait_for_stop))


def wait_for_stop() -> None:
    requested: Any = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
    while not requested():
        time.sleep(0.01)


def interrupting(job: Job, link: Any) -> None:
    """The same, and lets the sweep have a Ctrl-C first."""

    def interrupt() -> None:
        os.kill(sweep_process(), signal.SIGINT)
        wait_for_stop()

    child_process.train_task(job, Tripwire(link, Validated, interrupt))


def interrupting_twice(job: Job, link: Any) -> None:
    """Lets the sweep have a second Ctrl-C once it has heard the first, and stops for neither."""

    def interrupt() -> None:
        os.kill(sweep_process(), signal.SIGINT)
        wait_for_stop()
        os.kill(sweep_process(), signal.SIGINT)
        hang(job, link)

    note(job, PIDS, os.getpid())
    child_process.train_task(job, Tripwire(link, Validated, interrupt))


def sweep_process() -> int:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    return parent.pid


def greedy(job: Job, link: Any) -> None:
    """Trains, but has memory for micro-batches of one row only."""

    def allocate() -> None:
        adjusted = RunFolder(job.path).adjusted
        if not adjusted.is_file() or read_json(adjusted)["trainer.micro_batch"] > 1:
            exhaust_memory()

    child_process.train_task(job, Tripwire(link, Started, allocate))


def greedy_until_stopped(job: Job, link: Any) -> None:
    """Has memory for half its micro-batch; then trains until it is asked to stop, which it hears twice."""

    def act() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # a job scheduler tells every process, and so does the sweep
        os.kill(sweep_process(), signal.SIGINT)
        wait_for_stop()
        os.kill(os.getpid(), signal.SIGTERM)

    if RunFolder(job.path).adjusted.is_file():
        child_process.train_task(job, Tripwire(link, Validated, act))
    else:
        runs_out_of_memory(job, link)


def exhaust_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with_little_more = pages * resource.getpagesize() + (64 << 20)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (with_little_more, before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# --------------------------------------------------------------------------------------------------- hostile tasks


def runs_out_of_memory(job: Job, link: Any) -> None:
    child_process.train_task(job, Tripwire(link, Started, exhaust_memory))


def cannot_be_built(job: Job, link: Any) -> None:
    raise OutOfMemory("the backbone does not fit")


def segfaults(job: Job, link: Any) -> None:
    ctypes.string_at(0)


def exits(job: Job, link: Any) -> None:
    os._exit(0)


def tells_and_then_fails(job: Job, link: Any) -> None:
    """As of two ranks: why all end, and what that did to the other."""
    link.send(OutOfMemory("the reason"))
    link.send(Failed("failed", "on rank 1: what followed"))


def exits_politely(job: Job, link: Any) -> None:
    print("the last line of who left")
    sys.exit(0)


def raises(job: Job, link: Any) -> None:
    raise ValueError("no such thing")


def fills_the_disk(job: Job, link: Any) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    child_process.train_task(job, Tripwire(link, Started, limit))


def ends_itself(job: Job, link: Any) -> None:
    child_process.train_task(job, Tripwire(link, Validated, lambda: os.kill(os.getpid(), signal.SIGTERM)))


def kills_itself(job: Job, link: Any) -> None:
    note(job, PIDS, subprocess.Popen(["sleep", "1000"]).pid)
    os.kill(os.getpid(), signal.SIGKILL)


def loses_a_trial_and_dies(job: Job, link: Any) -> None:
    """A pack that dies after another machine took over its first trial; without a pack, notes whose the trial is."""
    if not job.pack:
        note(job, COUNT, f"{job.path.name} {'held elsewhere' if FOREIGN in _newest(job.path).read_text() else 'held'}")
        instant(job, link)
        return
    taken, other = (_newest(trial.path) for trial in job.pack)
    number = int(taken.name.rpartition("-")[2])
    taken.rename(taken.with_name(f".claim.lease-{number + 9}"))
    taken.with_name(f".claim.lease-{number + 9}").write_text(f"2 {FOREIGN}")
    beats = 0
    while beats < 3:  # the sweep's process has then missed the beat of the first
        latest = _newest(other.parent)
        beats, other = beats + (latest != other), latest
    os.kill(os.getpid(), signal.SIGKILL)


FOREIGN = "node1 another-boot pid:[1] 17 4"
"""A holder of a lease on another machine."""


def _newest(trial: Path) -> Path:
    return max(trial.glob(".claim.lease-*"), key=lambda file: int(file.name.rpartition("-")[2]))


def floods_the_link(job: Job, link: Any) -> None:
    os.write(link.fileno(), b"\0\0\0\xffhalf a word")
    os.kill(os.getpid(), signal.SIGKILL)


HOSTILE: dict[int, tuple[Callable[[Job, Any], None], str, str]] = {
    1: (runs_out_of_memory, "oom", "out of memory with trainer.micro_batch"),
    2: (child_process.train_task, "diverged", "the loss is not finite"),
    3: (segfaults, "failed", "ended by SIGSEGV"),
    4: (exits, "failed", "exited with code 0 and no result"),
    5: (exits_politely, "failed", "exited with code 0 and no result"),
    6: (raises, "failed", "ValueError: no such thing"),
    7: (fills_the_disk, "disk_full", "cannot be written"),
    8: (ends_itself, "preempted", "asked to stop from outside"),
    9: (kills_itself, "killed", "killed by SIGKILL"),
    10: (cannot_be_built, "oom", "the backbone does not fit"),
    11: (floods_the_link, "killed", "killed by SIGKILL"),
}
"""Seed of a trial -> what it does, the state it must end in and what the reason must say."""


def mixed(job: Job, link: Any) -> None:
    """Misbehaves by the trial's seed; seeds above 100 train, the others are instant."""
    note(job, PIDS, os.getpid())
    assert job.config is not None
    otherwise = child_process.train_task if job.config.seed > 100 else instant
    HOSTILE.get(job.config.seed, (otherwise,))[0](job, link)


def mended(job: Job, link: Any) -> None:
    """What `mixed` has preempted trains on, everything else is instant."""
    assert job.config is not None
    (child_process.train_task if HOSTILE.get(job.config.seed, (None,))[0] is ends_itself else instant)(job, link)


# ------------------------------------------------------------------------------------------------------------ packs


def instant_pack(job: Job, link: Any, act: Callable[[PackTrial, Any], Failed | int] = lambda trial, link: 0) -> None:
    """A pack whose trials finish one after the other, and those that take their places too.

    `act` is called when a trial's turn comes; what is not 0 ends it without a result.
    """
    waiting = [*job.pack] or [PackTrial(job.path, _config(job), "")]
    note(job, PACKS, " ".join(str(trial.config.seed) for trial in waiting))
    while waiting:
        trial = waiting.pop(0)
        ended = act(trial, link)
        if ended == 0:
            note(job, COUNT, trial.name)
            write_json(RunFolder(trial.path).result, {"state": "finished", "validation": {"log_loss": 1.0}})
        if job.pack:
            link.send(Left(trial.name, 1, ended) if isinstance(ended, Failed) else Left(trial.name, ended, None))
            link.send(Asked())
            waiting += [newcomer] if (newcomer := link.recv()) is not None else []


def _config(job: Job) -> Any:
    assert job.config is not None
    return job.config


def guilty_pack(job: Job, link: Any) -> None:
    """Trial 5 ends the process of whoever trains with it before any has finished, trial 21 when its turn comes."""
    if any(trial.config.seed == 5 for trial in job.pack) or (not job.pack and _config(job).seed == 5):
        note(job, PACKS, "died")
        ctypes.string_at(0)

    def act(trial: PackTrial, link: Any) -> int:
        if trial.config.seed == 21:
            ctypes.string_at(0)
        return 0

    instant_pack(job, link, act)


def late_pack(job: Job, link: Any) -> None:
    """Trial 1 leaves when it is dismissed, which it hears while it waits for an answer; trial 2 hears nothing."""

    def act(trial: PackTrial, link: Any) -> int:
        if trial.config.seed == 1:
            link.send(Validated(trial.name, 1))
            heard = [link.recv(), link.recv()]
            assert sorted(type(one).__name__ for one in heard) == ["Dismissal", "Verdict"]
            return 1
        if trial.config.seed == 2:
            hang(job, link)
        return 0

    instant_pack(job, link, act)


def crowded_pack(job: Job, link: Any) -> None:
    """Trial 3 has no room beside others; three are too many for the process."""
    if len(job.pack) > 3:
        raise PackOutOfMemory("out of memory with 4 trials together")

    def act(trial: PackTrial, link: Any) -> Failed | int:
        crowded = trial.config.seed == 3 and job.pack
        return Failed("oom", "out of memory with trainer.micro_batch=4") if crowded else 0

    instant_pack(job, link, act)


def stopped_once_one_is_paused(job: Job, link: Any) -> None:
    """Trains, and lets the sweep have a Ctrl-C when a place in the pack has come free."""

    def interrupt() -> None:
        os.kill(sweep_process(), signal.SIGINT)
        wait_for_stop()

    child_process.train_task(job, Tripwire(link, Asked, interrupt))


class Killer(Tripwire):
    """Kills the process before the n-th message of a kind leaves it."""

    def __init__(self, link: Any, kind: type, left: int) -> None:
        super().__init__(link, kind, self._count)
        self._left = left

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_once(job: Job, link: Any) -> None:
    """Trains, and dies once every trial has a checkpoint, if it is the first pack of its sweep."""
    first = not lines(job.path.parent, PACKS)
    note(job, PACKS, len(job.pack))
    child_process.train_task(job, Killer(link, Validated, len(job.pack) + 1) if first else link)


# ------------------------------------------------------------------------------------------------------------ hangs


def hang(job: Job, link: Any) -> None:
    note(job, PIDS, os.getpid())
    while True:
        signal.pause()


def hang_in_c(job: Job, link: Any) -> None:
    """Holds the interpreter's lock, so that no Python code of this process runs any more, and hears no SIGTERM."""
    note(job, PIDS, os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.PyDLL(None).pause()


def hang_silently(job: Job, link: Any) -> None:
    """Hangs with its link closed and a process of its own running."""
    note(job, PIDS, subprocess.Popen(["sleep", "1000"]).pid)
    link.close()
    hang(job, link)


def some_hang(job: Job, link: Any) -> None:
    assert job.config is not None
    {1: hang, 2: hang_in_c, 3: hang_silently}.get(job.config.seed, instant)(job, link)


def orphans(job: Job, link: Any) -> None:
    """Trial 1 kills the warm parent of all trials and lives on."""
    assert job.config is not None
    if job.config.seed == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        hang(job, link)
    instant(job, link)


# ----------------------------------------------------------------------------------- sweeps in processes of their own


def light() -> None:
    """From here on warm parents of this process import next to nothing: for tasks that don't train."""
    process_pool.WARM[:] = ["danube_sweep.sweeping.execute.child_process"]


def share(path: Path, task: Callable[[Job, Any], None] = instant, pack: int = 1) -> None:
    """Runs the trials of a folder as one of several processes, two at a time."""
    from rich.console import Console

    from danube_sweep.storage.sweep_folder import SweepFolder
    from danube_sweep.sweeping.execute.executor import Executor
    from danube_sweep.sweeping.execute.slots import Slots
    from danube_sweep.sweeping.propose.next_trial import FolderSource
    from danube_sweep.terminal.screen import Terminal

    light()
    slots = Slots([{"SLOT": "0"}, {"SLOT": "1"}])
    terminal = Terminal(Console(quiet=True))
    Executor(FolderSource(SweepFolder(path)), Sweep(stagger_s=0, pack=pack), slots, terminal, lambda: False, task).run()


def leave_network() -> None:
    """Goes on in a network namespace of its own, like another machine, where this process may make one."""
    ctypes.CDLL(None).unshare(NEW_NETWORK)


def claim_all(path: Path) -> None:
    """Ends the trials of a folder as one of several processes, without reading configs or a process for each."""
    from danube_sweep.storage.sweep_folder import Attempt, SweepFolder, append_attempt
    from danube_sweep.sweeping.propose.next_trial import claimed, state_of

    entries = SweepFolder(path).entries()
    while open_ones := [entry for entry in entries if state_of(entry) is None]:
        for entry in open_ones:
            if (lock := claimed(entry)) is not None:
                if state_of(entry) is None:
                    append_attempt(entry.folder, Attempt("finished", 0.0, "", str(os.getpid())))
                    write_json(entry.folder.result, {"state": "finished", "validation": {"log_loss": 1.0}})
                lock.release()


def hangs_with_its_sweep(job: Job, link: Any) -> None:
    """Trains; at its first validation it stops as its sweep does, until both are woken."""

    def stop() -> None:
        note(job, PIDS, os.getpid())
        os.kill(sweep_process(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)

    child_process.train_task(job, Tripwire(link, Validated, stop))


def share_without_parent(path: Path) -> None:
    """`share` with a warm parent that is dying, deaf for what it is asked, when the first trial is to start."""
    light()
    process_pool.Pool(on_cpu=False)
    forkserver.ensure_running()
    parent = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(parent, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, [parent, signal.SIGKILL]).start()
    share(path)


def kills_the_sweep(job: Job, link: Any) -> None:
    note(job, PIDS, os.getpid())
    note(job, PIDS, subprocess.Popen(["sleep", "1000"]).pid)
    os.kill(sweep_process(), signal.SIGKILL)
    hang_in_c(job, link)


# ------------------------------------------------------------------------------------------------- ranks of a trial


def others_are_killed(job: Job, link: Any) -> None:
    """Trains with other ranks, which are killed before the second step is told."""
    child_process.train_task(job, Tripwire(link, Stepped, lambda: _to_the_others(job, signal.SIGKILL)))


def others_are_frozen(job: Job, link: Any) -> None:
    """Trains with other ranks, which hang from the second step on."""
    child_process.train_task(job, Tripwire(link, Stepped, lambda: _to_the_others(job, signal.SIGSTOP)))


def leads_without_a_gradient(job: Job, link: Any) -> None:
    """Trains with other ranks, and fails before the first gradients are summed; they do not."""
    from danube_sweep.training import checks

    def fails(_parameters: object) -> None:
        raise GuardError("a gradient is missing here")

    checks.check_gradients = fails
    child_process.train_task(job, link)


def _to_the_others(job: Job, number: int) -> None:
    # The warm parent's other children: a test has one trial at a time.
    for file in Path("/proc").glob("[0-9]*/stat"):
        pid, _, rest = file.read_text().partition(" ")
        if int(rest.rpartition(")")[2].split()[1]) == os.getppid() and int(pid) != os.getpid():
            note(job, PIDS, pid)
            os.kill(int(pid), number)


def dies_with_its_result(job: Job, link: Any) -> None:
    """Writes the result of a finished run and is killed before it can say so."""
    write_json(job.path / "result.json", {"trial": "a", "state": "finished"})
    os.kill(os.getpid(), signal.SIGKILL)
