"""The command that starts a sweep's actors on a Ray cluster and waits: Ray places them, and again when a node dies."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from danube_sweep import paths
from danube_sweep.errors import Interrupted, SweepFailed
from danube_sweep.storage.sweep_folder import SweepFolder
from danube_sweep.sweeping.cluster.cluster_fields import RayOptions
from danube_sweep.sweeping.cluster.follow_jobs import TOLD_S, Run
from danube_sweep.sweeping.cluster.ray_options import connect
from danube_sweep.sweeping.cluster.ray_worker import RayWorker
from danube_sweep.sweeping.cluster.worker_exits import explains_exit_1
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.signals import StopRequest

ASKED_S: Final = 1.0
ANSWERS_S: Final = 20.0
"""How long a worker that has a place may take to answer."""
STOPS_S: Final = 120.0
"""How long workers may take to checkpoint when the command is stopped."""


def on_ray(options: RayOptions) -> Run:
    """The function that runs a planned sweep on a Ray cluster. It returns when its workers have ended.

    Raises ConfigError without a cluster, Interrupted for a stop, after which the trials have checkpointed, and
    SweepFailed for workers that could not train.
    """

    def run(folder: SweepFolder, terminal: Terminal) -> None:
        workers = connect(options)
        import ray

        try:
            with StopRequest(patient=True, silent=True) as stop:
                _Actors(folder, options, workers, terminal).run(stop)
        finally:
            ray.shutdown()

    return run


@dataclass
class _Actors:
    folder: SweepFolder
    options: RayOptions
    workers: int
    terminal: Terminal
    bad: list[str] = field(default_factory=list)
    """A line for each worker that could not train."""
    training: dict[Any, Any] = field(default_factory=dict)
    """The pending return of a worker's training -> the worker."""

    @property
    def place(self) -> str:
        return str(paths.from_here(self.folder.path))

    @property
    def again(self) -> str:
        """What continues the sweep on the cluster; `resume` would train on this machine."""
        return f"the same command and hydra.sweep.dir={self.place}"

    def run(self, stop: StopRequest) -> None:
        self._start()
        ended = False
        told_s, told = time.monotonic(), 0
        while self.training:
            if stop():
                self._stop()
                raise Interrupted(f"go on with {self.again}", stop.signal_number or 2)
            ended = self._hear() or ended
            if ended:  # no trial is left: who has not begun by now need not
                self._drop_unplaced("the last trial ended")
            if time.monotonic() - told_s >= TOLD_S:
                told_s, told = time.monotonic(), self._tell(told)
        for line in self.bad[1:]:
            self.terminal.note(line)
        if self.bad:
            raise SweepFailed(f"{self.bad[0]}; go on with {self.again}")

    def _start(self) -> None:
        import ray

        asked = self.options
        kind = ray.remote(RayWorker).options(
            num_gpus=asked.gpus_per_worker,
            num_cpus=asked.cpus_per_worker,
            resources=asked.resources or None,
            max_restarts=asked.max_restarts,
            max_task_retries=-1,
            max_concurrency=3,
        )
        shared = [] if self.workers == 1 else [f"sweep.workers={self.workers}"]
        for _ in range(self.workers):
            worker = kind.remote(str(self.folder.path), str(Path.cwd()), shared)
            self.training[worker.train.remote()] = worker
        self.terminal.note(f"{_count(self.workers)} of Ray asked for; they share {self.place}")

    def _hear(self) -> bool:
        """Takes the returns of workers; whether one has found no trial left."""
        import ray

        ready, _ = ray.wait([*self.training], timeout=ASKED_S)
        done = False
        for one in ready:
            worker = self.training.pop(one)
            try:
                code, said = ray.get(one)
            except ray.exceptions.RayError as error:
                again = self.options.max_restarts
                self.bad.append(
                    f"a worker died and could not be started again (hydra.launcher.max_restarts={again}): "
                    f"{str(error).splitlines()[0]}"
                )
                continue
            ray.kill(worker)
            if code == 0 or (code == 1 and explains_exit_1(self.folder)):
                done = True
            else:
                why = said.partition("; go on with: ")[0] or "see the logs of Ray"
                self.bad.append(f"a worker ended with exit code {code}: {why}")
        return done

    def _drop_unplaced(self, when: str) -> None:
        import ray

        asked = {worker.answer.remote(): one for one, worker in self.training.items()}
        if not asked:
            return
        _, silent = ray.wait([*asked], num_returns=len(asked), timeout=ANSWERS_S)
        for answer in silent:
            ray.kill(self.training.pop(asked[answer]))
        if silent:
            self.terminal.note(f"{_count(len(silent))} had no place on the cluster when {when}")

    def _stop(self) -> None:
        import ray

        for worker in self.training.values():
            worker.stop.remote()
        self._drop_unplaced("the command was stopped")  # they would not answer in STOPS_S either
        if self.training:
            ray.wait([*self.training], num_returns=len(self.training), timeout=STOPS_S)

    def _tell(self, told: int) -> int:
        entries = self.folder.entries()
        ended = sum(entry.folder.result.is_file() for entry in entries)
        if ended > told:
            self.terminal.note(f"{ended} of {len(entries)} trials have ended")
        return ended


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
