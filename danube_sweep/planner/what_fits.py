"""Whether a trial fits a device, the change that makes it fit, and the largest micro-batch that fits."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from danube_sweep.config.facts.adapters import FOUR_BIT
from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.facts.evaluation import eval_tokens
from danube_sweep.config.schema import Compute, Config, Device, FullFinetune, Lora, Precision, Storage
from danube_sweep.config.validate import AUTO, SHARDED
from danube_sweep.errors import MisfitError
from danube_sweep.optimizer.kinds.adamw import AdamW
from danube_sweep.optimizer.kinds.adamw_8bit import AdamW8bit
from danube_sweep.planner.memory import GIB, SPREAD, Memory, memory_of
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import capacity_bytes, planned_device, slots_share
from danube_sweep.planner.several_devices import alone

CHUNK: Final = 1024
"""Tokens whose logits are made at a time, as a change that saves memory: a product of them fills a device."""


FITS, TIGHT, NO, UNKNOWN = "fits", "tight", "no", "unknown"


@dataclass(frozen=True)
class Fit:
    """A trial's memory against the device's."""

    memory: Memory
    capacity_bytes: float | None
    """None if unknown."""
    spread: float
    """Share of the prediction by which measured runs exceeded it."""

    @property
    def share(self) -> float | None:
        """Of the device's memory."""
        return None if self.capacity_bytes is None else self.memory.total / self.capacity_bytes

    @property
    def fits(self) -> bool:
        """Whether it fits with margins, if tightly; an unknown capacity counts as fitting."""
        return self.capacity_bytes is None or self.memory.total <= self.capacity_bytes

    @property
    def verdict(self) -> str:
        """`fits`, `tight` if measured runs of such a prediction might not have fitted, `no`, or `unknown`."""
        if self.capacity_bytes is None:
            return UNKNOWN
        if not self.fits:
            return NO
        return TIGHT if self.memory.total * (1 + self.spread) > self.capacity_bytes else FITS


def fit_of(config: Config, model: Architecture, device: Device, *, classes: int = 3, longest: int | None = None) -> Fit:
    """The fit of a trial on a device that `planned_device` has completed."""
    on_device = dataclasses.replace(config, device=device)
    memory = memory_of(on_device, model, classes=classes, longest=longest)
    return fit_on(memory, device)


def fit_on(memory: Memory, device: Device) -> Fit:
    """The fit of predicted memory on a device that `planned_device` has completed."""
    return Fit(memory, capacity_bytes(device), SPREAD[device.accelerator == "cpu"])


def micro_batches(effective_batch: int) -> list[int]:
    """The sizes that divide a step evenly, largest first."""
    return [size for size in range(effective_batch, 0, -1) if effective_batch % size == 0]


def with_micro_batch(config: Config, rows: int) -> Config:
    """The same trial with other micro-batches and as many rows a step; the config itself if it has these already."""
    if rows == config.trainer.micro_batch:
        return config
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, micro_batch=rows))


def largest_micro_batch(config: Config, model: Architecture, device: Device, most: int | None = None) -> int | None:
    """The most rows of a forward pass that fit, up to the effective batch or `most`; None if not even one does."""
    for rows in micro_batches(config.trainer.effective_batch):
        if (most is None or rows <= most) and fit_of(with_micro_batch(config, rows), model, device).fits:
            return rows
    return None


def resolved(config: Config, slots: int | None = None) -> Config:
    """The config with trainer.micro_batch=auto replaced by the largest that fits its device and divides the step.

    `slots` trials at a time share the device. Raises MisfitError if not even one row fits.
    """
    if config.trainer.micro_batch != AUTO:
        return config
    model, planned = planned_architecture(config.model), planned_device(config.device)
    # Of one device: the number of devices must not change the trial. Divided weights may not fit one.
    device = slots_share(planned if planned.sharding == SHARDED else alone(planned), slots)
    rows = largest_micro_batch(config, model, device)
    if rows is None:
        one = with_micro_batch(config, 1)
        raise MisfitError(f"trainer.micro_batch=auto: not even one row fits: {misfit(one, model, device)}")
    return with_micro_batch(config, rows)


def misfit(config: Config, model: Architecture, device: Device) -> str:
    """Why a trial does not fit and the cheapest change that makes it, in one line."""
    fit = fit_of(config, model, device)
    assert fit.capacity_bytes is not None
    needs, has = fit.memory.total / GIB, fit.capacity_bytes / GIB
    remedy = cheapest_change(config, model, device) or "a smaller model or a smaller data.max_length"
    return f"it needs {needs:.2f} GiB and {device.name} has {has:.2f}; use {remedy}"


def cheapest_change(config: Config, model: Architecture, device: Device) -> str | None:
    """The overrides that make a trial fit, the cheapest first: smaller evaluation batches, chunks of logits,
    checkpointing, fewer rows, 8-bit states, 16-bit storage, 4-bit storage.

    One change is tried before several, of several none is superfluous; None if nothing helps.
    """
    for change in CHANGES:
        changed, said = change(config, model, device)
        if said and fit_of(changed, model, device).fits:
            return " ".join(said)
    for last in range(2, len(CHANGES) + 1):
        needed = list(CHANGES[:last])
        if not fit_of(_changed(config, model, device, needed)[0], model, device).fits:
            continue
        for one in reversed(CHANGES[:last]):  # the most expensive change is dropped first
            fewer = [change for change in needed if change is not one]
            if fit_of(_changed(config, model, device, fewer)[0], model, device).fits:
                needed = fewer
        # How many rows fit is known when all else is settled.
        ordered = sorted(needed, key=lambda change: change is _fewer_rows)
        return " ".join(_changed(config, model, device, ordered)[1])
    return None


Changed = tuple[Config, list[str]]
Change = Callable[[Config, Architecture, Device], Changed]


def _changed(config: Config, model: Architecture, device: Device, changes: Sequence[Change]) -> Changed:
    said: list[str] = []
    for change in changes:
        config, more = change(config, model, device)
        said += more
    return config, said


def _smaller_evaluation(config: Config, model: Architecture, device: Device) -> Changed:
    trainer = config.trainer
    if trainer.eval_batch is None:
        return config, []
    smaller = dataclasses.replace(config, trainer=dataclasses.replace(trainer, eval_batch=None))
    tokens = eval_tokens(smaller, config.data.max_length, on_cpu=device.accelerator == "cpu")
    if tokens >= trainer.eval_batch * config.data.max_length:  # on a CPU it may be larger
        return config, []
    return smaller, ["trainer.eval_batch=null"]


def _chunks(config: Config, model: Architecture, device: Device) -> Changed:
    if not config.head.predicts_tokens or config.head.in_chunks:
        return config, []
    head: Any = config.head
    return dataclasses.replace(config, head=dataclasses.replace(head, chunk=CHUNK)), [f"head.chunk={CHUNK}"]


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


def _half_storage(config: Config, model: Architecture, device: Device) -> Changed:
    half = _half(config, device)
    full = isinstance(config.lora, FullFinetune)
    if config.precision.storage is not Storage.fp32 or (full and half is Compute.fp16):
        return config, []
    precision = dataclasses.replace(config.precision, storage=Storage(half.value), compute=half)
    return dataclasses.replace(config, precision=precision), [f"precision={half.value}"]


def _four_bits(config: Config, model: Architecture, device: Device) -> Changed:
    if config.precision.storage in FOUR_BIT and config.precision.double_quant:
        return config, []
    kept = config.precision.gradient_checkpointing
    precision = Precision(Storage.nf4, _half(config, device), double_quant=True, gradient_checkpointing=kept)
    if isinstance(config.lora, FullFinetune):
        return dataclasses.replace(config, precision=precision, lora=Lora()), ["lora=lora", "precision=nf4_dq"]
    return dataclasses.replace(config, precision=precision), ["precision=nf4_dq"]


def _half(config: Config, device: Device) -> Compute:
    # As the precision group settles it for a named device.
    types = config.device.types or device.types
    return Compute.fp16 if types and "bf16" not in types else Compute.bf16


CHANGES: tuple[Change, ...] = (
    _smaller_evaluation,
    _chunks,
    _checkpointing,
    _fewer_rows,
    _small_states,
    _half_storage,
    _four_bits,
)
"""From the one that costs least to the one that costs most."""
