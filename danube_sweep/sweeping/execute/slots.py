"""How many trials run at a time, and where: a GPU each, or shares of the CPU."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from danube_sweep.config.schema import Sweep
from danube_sweep.errors import ConfigError
from danube_sweep.planner.present_gpu import VISIBLE, has_gpu_files, named_gpus
from danube_sweep.sweeping.execute import child_process
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.process_outcome import last_lines
from danube_sweep.sweeping.execute.process_pool import Pool


@dataclass(frozen=True)
class Slots:
    """How many trials run at a time, and the environment of each slot (its GPU)."""

    environments: list[dict[str, str]]
    threads: int | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether no slot has a GPU."""
        return not any(self.environments)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment variables of a process in `slot`."""
        return {**os.environ, **self.environments[slot]}


def find_slots(sweep: Sweep, accelerators: set[str]) -> Slots:
    """The slots for trials whose device.accelerator is one of `accelerators`: by default one per GPU, or one."""
    gpus = [] if accelerators <= {"cpu"} else _gpus()
    count = sweep.slots or max(1, len(gpus))
    if gpus:
        return Slots([{VISIBLE: gpus[slot % len(gpus)]} for slot in range(count)])
    # Threads of several trials that contend for the same cores can be fifty times slower than one each.
    chosen = "OMP_NUM_THREADS" in os.environ or count == 1
    return Slots([{} for _ in range(count)], None if chosen else max(1, (os.cpu_count() or 1) // count))


def _gpus() -> list[str]:
    # The names that CUDA_VISIBLE_DEVICES takes.
    if (named := named_gpus()) is not None:
        return named
    if not has_gpu_files():
        return []
    return [str(number) for number in range(ask_torch_for_gpus())]


def ask_torch_for_gpus() -> int:
    """How many GPUs torch sees, asked in a child: here it would hold memory on one. Raises ConfigError."""
    with TemporaryDirectory() as folder:
        probe = Pool(on_cpu=False).start(child_process.count_gpus_task, Job(Path(folder), Path.cwd(), dict(os.environ)))
        try:
            return int(probe.link.recv())
        except (EOFError, TypeError) as error:  # it died, or said why it cannot
            said = " ".join(last_lines(Path(folder, "log.txt"))[-1:])
            way_out = f"name them in {VISIBLE} or use device=cpu"
            raise ConfigError(f"the GPUs cannot be counted ({said}); {way_out}") from error
        finally:
            probe.reap()
