"""The jobs of a sweep: submitted by submitit, listed by the scheduler itself, remembered outside the sweep's folder."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from danube_sweep import paths
from danube_sweep.errors import CheckpointError, ConfigError, DiskError
from danube_sweep.storage.files import read_json, write_json, writing
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.cluster.cluster_fields import ClusterOptions, from_plain
from danube_sweep.sweeping.cluster.cluster_options import AT, state_folder
from danube_sweep.sweeping.cluster.cluster_worker import Worker

_LISTED_S: Final = 60.0


@dataclass(frozen=True)
class ClusterJobs:
    """The request for a sweep, and the ids of its jobs. `folder` holds submitit's files and their logs."""

    folder: Path
    options: ClusterOptions
    ids: tuple[str, ...] = ()

    def alive(self) -> list[str] | None:
        """The ids that wait or run; None while the scheduler does not answer."""
        if self.options.cluster == "local":
            return [one for one in self.ids if _runs_here(one)]
        command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LISTED_S)
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != 0:
            return None
        listed = set(done.stdout.split())
        return [one for one in self.ids if one in listed]

    def unsuccessful(self, *, excused: bool) -> list[str]:
        """A line for each worker that did not end by itself, with the last line of its log.

        Exit code 1 is ordinary only if trials excuse it: `explains_exit_1`.
        """
        ordinary = ("0", "1") if excused else ("0",)
        found = []
        for one in self.ids:
            for rank in range(self.options.nodes):
                report = self.folder / f"{one}_{rank}{Worker.reported}"
                code = report.read_text(encoding="utf-8").strip() if report.is_file() else None
                if code not in ordinary:
                    found.append(f"job {one}: {self._last_said(one, rank, code)}")
        return found

    def _last_said(self, one: str, rank: int, code: str | None) -> str:
        log = self.folder / f"{one}_{rank}_log.err"
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            said = [line for line in lines if line.startswith("danube-sweep: error: ")]
            if said and code is not None:
                return said[-1].removeprefix("danube-sweep: error: ")
        return f"ended {'without a report' if code is None else f'with exit code {code}'}; its log is {log}"


def remembered(sweep: Path) -> ClusterJobs | None:
    """The jobs that this user submitted for the sweep in a folder; None without any.

    Raises CheckpointError for a damaged record of them.
    """
    file = _state(sweep) / "jobs.json"
    if not file.is_file():
        return None
    _check_private(file.parent)
    try:
        found = read_json(file)
        options = from_plain(found["options"])
        return ClusterJobs(Path(found["folder"]), options, tuple(map(str, found["ids"])))
    except (CheckpointError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged; delete it and give the sweep's command again") from error


def submit(sweep: SweepFolder, options: ClusterOptions, settings: Sequence[str]) -> ClusterJobs:
    """Submits the workers of a sweep. Raises ConfigError if the scheduler refuses them, and DiskError."""
    folder = state_folder(sweep.path, options.folder, paths.cache_dir())
    for place in (folder, _state(sweep.path)):
        with writing(place, f"choose another {AT}.folder"):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(place)
    entry = next((one for one in sweep.entries() if one.hash is not None), None)
    shared = [] if options.workers == 1 else [f"sweep.workers={options.workers}"]
    worker = Worker(
        sweep.path, entry.path.name if entry else None, Path.cwd(), [*settings, *shared], options.signal_delay_s
    )
    jobs = replace(ClusterJobs(folder, options), ids=tuple(_submitted(folder, options, worker)))
    record = {"sweep": str(sweep.path), "folder": str(folder), "options": options.plain(), "ids": list(jobs.ids)}
    write_json(_state(sweep.path) / "jobs.json", record)
    return jobs


def _state(sweep: Path) -> Path:
    """Where the jobs of a sweep are remembered, wherever submitit's own files lie."""
    return state_folder(sweep, None, paths.cache_dir())


def _submitted(folder: Path, options: ClusterOptions, worker: Worker) -> list[str]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(folder, options)
    try:
        with executor.batch():
            jobs = [executor.submit(worker) for _ in range(options.jobs)]
        return [str(job.job_id) for job in jobs]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = [line.strip() for line in str(error).splitlines() if "rror" in line]
        raise ConfigError(f"{AT}: the scheduler refuses the jobs: {' '.join(said[-1:]) or error}") from error


def _executor(folder: Path, options: ClusterOptions) -> Any:
    from submitit import LocalExecutor, SlurmExecutor

    both = {"gpus_per_node": options.gpus_per_node, "setup": options.setup or None}
    both["signal_delay_s"] = options.signal_delay_s
    if options.cluster == "local":
        local = LocalExecutor(folder, max_num_timeout=options.max_num_timeout)
        local.update_parameters(timeout_min=options.timeout_min, **_stated(both))
        return local
    slurm = SlurmExecutor(folder, max_num_timeout=options.max_num_timeout)
    slurm.update_parameters(**_stated(both), **_stated(_of_sbatch(options)))
    return slurm


def _of_sbatch(options: ClusterOptions) -> dict[str, Any]:
    return {
        "job_name": options.name,
        "time": options.timeout_min,
        "nodes": options.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": options.cpus_per_task,
        "mem": None if options.mem_gb is None else f"{round(1024 * options.mem_gb)}M",
        "partition": options.partition,
        "qos": options.qos,
        "account": options.account,
        "constraint": options.constraint,
        "array_parallelism": options.array_parallelism,
        "additional_parameters": {"requeue": True, **options.additional_parameters},
    }


def _stated(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _check_private(folder: Path) -> None:
    # Jobs unpickle the files in this folder.
    stat = folder.stat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
        raise DiskError(
            f"{folder} can be written by others, and jobs run what is in it; chmod 700 it, or choose another"
        )


def _runs_here(pid: str) -> bool:
    with suppress(OSError):
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for one that has ended
    return False
