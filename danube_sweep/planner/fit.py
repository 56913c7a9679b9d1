"""Whether a trial fits a device, what would make it fit, and the largest micro-batch that does."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from danube_sweep.architecture import Architecture
from danube_sweep.errors import ConfigError
from danube_sweep.planner.device import capacity_bytes, planned_device
from danube_sweep.planner.memory import GIB, Memory, memory_of
from danube_sweep.planner.model import planned_architecture
from danube_sweep.schema import AdamW, AdamW8bit, Config, Device, FullFinetune, Lora, Precision, Storage
from danube_sweep.validate import AUTO, FOUR_BIT


@dataclass(frozen=True)
class Fit:
    """A trial's memory against what the device has."""

    memory: Memory
    capacity_bytes: float | None
    """None where nobody knows."""

    @property
    def share(self) -> float | None:
        """Of the device's memory."""
        return None if self.capacity_bytes is None else self.memory.total / self.capacity_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits, margins included; what nobody knows counts as fitting."""
        return self.capacity_bytes is None or self.memory.total <= self.capacity_bytes


def fit_of(config: Config, model: Architecture, device: Device, *, classes: int = 3, longest: int | None = None) -> Fit:
    """The fit of a trial on a device that `planned_device` has completed."""
    on_device = dataclasses.replace(config, device=device)
    return Fit(memory_of(on_device, model, classes=classes, longest=longest), capacity_bytes(device))


def micro_batches(effective_batch: int) -> list[int]:
    """The sizes that divide a step evenly, largest first."""
    return [size for size in range(effective_batch, 0, -1) if effective_batch % size == 0]


def with_micro_batch(config: Config, rows: int) -> Config:
    """The same trial with other micro-batches and as many rows a step."""
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, micro_batch=rows))


def largest_micro_batch(config: Config, model: Architecture, device: Device, most: int | None = None) -> int | None:
    """The most rows of a forward pass that fit, up to the effective batch or `most`; None if not even one does."""
    for rows in micro_batches(config.trainer.effective_batch):
        if (most is None or rows <= most) and fit_of(with_micro_batch(config, rows), model, device).fits:
            return rows
    return None


def resolved(config: Config) -> Config:
    """The config with trainer.micro_batch=auto replaced by the largest that fits its device.

    Raises ConfigError if not even one row fits.
    """
    if config.trainer.micro_batch != AUTO:
        return config
    model, device = planned_architecture(config.model), planned_device(config.device)
    rows = largest_micro_batch(config, model, device)
    if rows is None:
        raise ConfigError(
            f"trainer.micro_batch=auto: not even one row fits; {misfit(with_micro_batch(config, 1), model, device)}"
        )
    return with_micro_batch(config, rows)


def misfit(config: Config, model: Architecture, device: Device, sharing: str = "") -> str:
    """Why a trial does not fit and the cheapest change that makes it, in one line."""
    fit = fit_of(config, model, device)
    assert fit.capacity_bytes is not None
    needs, has = fit.memory.total / GIB, fit.capacity_bytes / GIB
    remedy = cheapest_change(config, model, device) or "a smaller model or data.max_length: nothing else would do"
    return f"it needs {needs:.1f} GiB and {device.name}{sharing} has {has:.1f}; use {remedy}"


def cheapest_change(config: Config, model: Architecture, device: Device) -> str | None:
    """The overrides that make a trial fit, the cheapest first: fewer rows, checkpointing, 8-bit states, 4-bit storage.

    One change is tried before several; None if nothing helps.
    """
    for changed, said in _changes(config, model, device):
        if fit_of(changed, model, device).fits:
            return " ".join(said)
    return None


def _changes(config: Config, model: Architecture, device: Device) -> Iterator[tuple[Config, list[str]]]:
    single = [_checkpointing, _fewer_rows, _small_states, _four_bits]
    for change in single:
        yield change(config, model, device)
    together, said = config, list[str]()
    for change in single:
        together, more = change(together, model, device)
        said = [*said, *more]
        yield together, said


Changed = tuple[Config, list[str]]


def _checkpointing(config: Config, model: Architecture, device: Device) -> Changed:
    if config.precision.gradient_checkpointing:
        return config, []
    precision = dataclasses.replace(config.precision, gradient_checkpointing=True)
    return dataclasses.replace(config, precision=precision), ["precision.gradient_checkpointing=true"]


def _fewer_rows(config: Config, model: Architecture, device: Device) -> Changed:
    rows = largest_micro_batch(config, model, device, most=config.trainer.micro_batch) or 1
    if rows == config.trainer.micro_batch:
        return config, []
    return with_micro_batch(config, rows), [f"trainer.micro_batch={rows}"]


def _small_states(config: Config, model: Architecture, device: Device) -> Changed:
    if not isinstance(config.optimizer, AdamW):
        return config, []
    fields = {field.name: getattr(config.optimizer, field.name) for field in dataclasses.fields(config.optimizer)}
    return dataclasses.replace(config, optimizer=AdamW8bit(**fields)), ["optimizer=adamw_8bit"]


def _four_bits(config: Config, model: Architecture, device: Device) -> Changed:
    if config.precision.storage in FOUR_BIT and config.precision.double_quant:
        return config, []
    storage = Precision(
        storage=Storage.nf4,
        compute=config.precision.compute,
        double_quant=True,
        gradient_checkpointing=config.precision.gradient_checkpointing,
    )
    adapter, said = config.lora, ["precision=nf4_dq", f"precision.compute={config.precision.compute.value}"]
    if isinstance(adapter, FullFinetune):
        adapter = Lora()
        said = ["lora=lora", *said]
    return dataclasses.replace(config, precision=storage, lora=adapter), said
