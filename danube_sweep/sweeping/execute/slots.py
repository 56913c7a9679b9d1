"""How many trials run at a time, and where: a GPU each, or shares of the CPU."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from danube_sweep.config.schema import Device, Sweep
from danube_sweep.config.validate import ALL
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
    ranks: list[tuple[dict[str, str], ...]] = field(default_factory=list)
    """With device.count, for each slot and each of its processes: the variables that it adds to its environment."""

    @property
    def on_cpu(self) -> bool:
        """Whether no slot has a GPU."""
        return not any(self.environments)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment variables of a process in `slot`."""
        return {**os.environ, **self.environments[slot]}

    def ranks_in(self, slot: int) -> tuple[dict[str, str], ...]:
        """The processes that train a trial together in `slot`; empty for one."""
        return self.ranks[slot] if self.ranks else ()


def visible_gpus(accelerators: set[str]) -> list[str]:
    """The GPUs for trials on these accelerators, as CUDA_VISIBLE_DEVICES names them. Raises ConfigError."""
    return [] if accelerators <= {"cpu"} else _gpus()


def find_slots(sweep: Sweep, accelerators: set[str], together: int | str = 1) -> Slots:
    """The slots for trials whose device.accelerator is one of `accelerators`: by default one per GPU, or one.

    With device.count, `together`, one for so many GPUs. Raises ConfigError where there are fewer.
    """
    gpus = visible_gpus(accelerators)
    if together not in (1, ALL) or (together == ALL and len(gpus) > 1):
        return _slots_of_ranks(sweep, gpus, accelerators, together)
    count = sweep.slots or max(1, len(gpus))
    if gpus:
        return Slots([{VISIBLE: gpus[slot % len(gpus)]} for slot in range(count)])
    # Threads of several trials that contend for the same cores can be fifty times slower than one each.
    chosen = "OMP_NUM_THREADS" in os.environ or count == 1
    return Slots([{} for _ in range(count)], None if chosen else max(1, (os.cpu_count() or 1) // count))


def ranks_for(device: Device) -> tuple[dict[str, str], ...]:
    """For each process that trains a trial with others, the variables added to its environment. Empty for one process.

    Raises ConfigError for more processes than GPUs.
    """
    if device.count == 1:
        return ()
    return find_slots(Sweep(slots=1), {device.accelerator}, device.count).ranks_in(0)


def check_devices(asked: object) -> None:
    """Raises ConfigError for a number of devices that cannot divide a prediction."""
    whole = isinstance(asked, int) and not isinstance(asked, bool) and asked >= 1
    if not whole and asked != ALL:
        raise ConfigError(f"--devices must be a number from 1 on or {ALL}, got {asked}")


def slots_to_predict(accelerator: str, asked: int | str) -> Slots:
    """A slot for each of the devices that divide a prediction: GPUs, or without any the shares of a CPU's cores.

    Raises ConfigError for more than there are.
    """
    gpus = visible_gpus({accelerator})
    if not gpus and accelerator == "cuda":
        raise ConfigError(f"--devices {asked}: torch sees no GPU here; use --accelerator cpu")
    there = len(gpus) or os.cpu_count() or 1
    if asked != ALL and int(asked) > there:
        cores = f"{there} core{'s' * (there > 1)}"
        found = f"torch sees {there} GPU{'s' * (there > 1)} here" if gpus else f"without a GPU, {cores} can divide it"
        raise ConfigError(f"--devices {asked}: {found}; use --devices {there}")
    if gpus:
        return Slots([{VISIBLE: gpu} for gpu in (gpus if asked == ALL else gpus[: int(asked)])])
    return find_slots(Sweep(slots=1 if asked == ALL else int(asked)), {"cpu"})


def _slots_of_ranks(sweep: Sweep, gpus: list[str], accelerators: set[str], together: int | str) -> Slots:
    if accelerators <= {"cpu"}:
        assert isinstance(together, int)
        slots = sweep.slots or 1
        return Slots([{} for _ in range(slots)], ranks=[({},) * together for _ in range(slots)])
    each = len(gpus) if together == ALL else int(together)
    there = f"{len(gpus) or 'no'} GPU{'s' * (len(gpus) > 1)} here"
    if each > len(gpus):
        fewer = f"device.count={len(gpus)} or device.count={ALL}" if len(gpus) > 1 else "device.count=1"
        raise ConfigError(f"device.count={each}: torch sees {there}; use {fewer}")
    slots = sweep.slots or len(gpus) // each
    if slots * each > len(gpus):
        most = len(gpus) // each
        raise ConfigError(
            f"sweep.slots={slots} with device.count={each} takes {slots * each} GPUs, and torch sees {there}; "
            f"use sweep.slots={most}"
        )
    shares = [gpus[slot * each : (slot + 1) * each] for slot in range(slots)]
    return Slots(
        [{VISIBLE: ",".join(share)} for share in shares],
        ranks=[tuple({VISIBLE: gpu} for gpu in share) for share in shares],
    )


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
