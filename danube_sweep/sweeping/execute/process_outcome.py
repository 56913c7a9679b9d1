"""The end of a trial's process as a state and a reason, from its exit code, its files and the sweep's own actions."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from danube_sweep.config.schema.states import State
from danube_sweep.errors import CheckpointError, RankLost
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute.messages import Failed

INTERRUPTED: Final = "interrupted"
"""The state of an attempt that the sweep itself has stopped. The trial continues with the sweep."""
_KILLS = {signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_LAST_LINES, _LAST_BYTES = 50, 16384


def outcome(
    folder: RunFolder | None, code: int, failed: Failed | None, *, kernel_killed: bool
) -> tuple[str, str | None]:
    """State and reason of a process that nobody here has stopped.

    `code` is its exit code, negative for a signal; `kernel_killed` whether the kernel ran out of memory meanwhile.
    `folder`: None where its files say nothing of this process.
    """
    with suppress(CheckpointError, KeyError):
        if folder is not None and (result := folder.read_result()) is not None:
            return str(result["state"]), result.get("error")
    if failed is not None:
        return failed.state, failed.reason
    if code == 0 and folder is not None and folder.paused.is_file():
        return State.paused.value, None
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        reason = "the kernel ended it: out of memory" if kernel_killed else "killed by SIGKILL"
        return (State.oom if kernel_killed else State.killed).value, reason
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGHUP):
        return State.preempted.value, "asked to stop from outside; it goes on from its checkpoint"
    if code < 0:
        return (State.killed if -code in _KILLS else State.failed).value, f"ended by {signal_name(-code)}"
    if code == RankLost.exit_code:
        return State.failed.value, (
            "its processes (device.count) cannot reach each other, and none of them had died; the log has NCCL's or "
            "gloo's error, often too little of /dev/shm"
        )
    return State.failed.value, f"exited with code {code} and no result"


def signal_name(number: int) -> str:
    """`SIGTERM` for 15, and `signal N` for a number without a name."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def last_lines(log: Path) -> list[str]:
    """The end of a log, for who asks why; of one that a trial has flooded, no more than is asked for."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_BYTES))
        return stream.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
    return []


def kernel_kills() -> int:
    """A number that rises when the kernel ends a process for want of memory, here or in this process's memory group."""
    counts = []
    for file in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"), *_groups()):
        with suppress(OSError, ValueError):
            words = file.read_text().split()
            counts.append(int(words[words.index("oom_kill") + 1]))
    return sum(counts)


def _groups() -> list[Path]:
    # cgroup v1 counts in memory.oom_control of the group, v2 in memory.events of the group.
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                found.append(Path(f"/sys/fs/cgroup{group}/memory.events"))
            elif "memory" in controllers.split(","):
                found.append(Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control"))
    return found
