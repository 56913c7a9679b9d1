"""Which keys a backbone is searched in: by the kind of answer, the adapter, and what the planner says of the device."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from danube_sweep.config.facts.architectures import family_of
from danube_sweep.config.schema import Config, LinearAdapter, Lora, Storage
from danube_sweep.errors import UserError
from danube_sweep.planner.trial_plan import TrialPlan
from danube_sweep.tonight.searched_keys import (
    EPOCHS_KEY,
    HEAD,
    LAST_K,
    LR,
    OPTIMIZER,
    POOLING,
    PRECISION,
    RANK,
    SWAP,
    TARGETS,
    VALIDATE,
    Key,
    Space,
)

RATES: Final = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Times the usual rate of the model and the optimizer; without adapters up to 8."""
RANKS: Final = ("4", "16", "64")
OTHER_OPTIMIZER: Final = "muon"
"""Its losses fell the most of all beside AdamW's (docs/decisions/019)."""
QUANTISED: Final = ("int8", "nf4")
ON_CPU: Final = ("bf16", *QUANTISED)

EPOCHS: Final = ("0.25", "0.5", "1", "2", "3", "4", "6", "10")
FEWEST_STEPS: Final = 40
"""Of a trial with less than an epoch: as many told optimizers apart (docs/decisions/019)."""

Planned = Callable[..., tuple[Config, TrialPlan]]
"""The trial of some more words, each an argument, and its plan. Raises UserError."""


@final
@dataclass(frozen=True)
class Known:
    """What is known of a backbone before its space."""

    config: Config
    words: Sequence[str]
    """The overrides of its first trial, those that followed from the device included."""
    fixed: Collection[str]
    """Fields that somebody has given: they are not searched."""
    classes: Collection[str]
    """Names of the classes of single texts; none for other answers."""
    rows: int | None
    """Of an epoch."""

    @property
    def epoch_steps(self) -> float:
        """Steps of an epoch; 0 if nobody knows."""
        return (self.rows or 0) / self.config.trainer.effective_batch

    def is_free(self, name: str) -> bool:
        """Whether neither a key nor, for a group, one of its fields was given."""
        return not any(one == name or ("." not in name and one.startswith(f"{name}.")) for one in self.fixed)

    def option(self, group: str, default: str) -> str:
        """The option of a group that the first trial takes."""
        chosen = [word.partition("=")[2] for word in self.words if word.startswith(f"{group}=")]
        return chosen[-1] if chosen else default


def space_of(known: Known, planned: Planned) -> Space:
    """The keys of a backbone, the most telling first."""
    optimizers = _optimizers(known, planned)
    rates = {name: _rates(planned(f"{OPTIMIZER}={name}")[0]) for name in optimizers[1:]}
    rates = {optimizers[0]: _rates(known.config), **rates}
    usual = rates[optimizers[0]]
    found = [
        Key(LR, usual, usual[RATES.index(1.0)]),
        *_heads(known),
        _choice(OPTIMIZER, optimizers),
        *_poolings(known),
        _choice(PRECISION, _precisions(known, planned)),
        *_adapters(known),
    ]
    if known.config.trainer.max_steps is None:
        epochs = tuple(one for one in EPOCHS if float(one) >= 1 or float(one) * known.epoch_steps >= FEWEST_STEPS)
        found.append(Key(EPOCHS_KEY, epochs, "1", only_up=True))
    keys = [key for key in found if key.name not in known.fixed and len(key.values) > 1]
    return Space(keys, rates, _validated(known))


def _validated(known: Known) -> dict[str, str]:
    # Two validations of a trial with less than an epoch: five would take longer than its training.
    if VALIDATE in known.fixed:
        return {}
    short = [one for one in EPOCHS if float(one) < 1 and float(one) * known.epoch_steps >= FEWEST_STEPS]
    return {one: str(math.ceil(float(one) * known.epoch_steps / 2)) for one in short}


def _choice(name: str, values: Sequence[str]) -> Key:
    return Key(name, tuple(dict.fromkeys(values)), values[0], ordered=False)


def _rates(config: Config) -> tuple[str, ...]:
    most = RATES[-1] if isinstance(config.lora, LinearAdapter) else 8.0
    return tuple(f"{config.optimizer.lr * one:.3g}" for one in RATES if one <= most)


def _optimizers(known: Known, planned: Planned) -> list[str]:
    # Where the rate is given, it is that of one optimizer; without matrices to train, Muon is AdamW.
    now = known.option(OPTIMIZER, "adamw")
    if not known.is_free(OPTIMIZER) or not isinstance(known.config.lora, Lora):
        return [now]
    return [now, *(one for one in (OTHER_OPTIMIZER,) if one != now and _fits(planned, f"{OPTIMIZER}={one}"))]


def _precisions(known: Known, planned: Planned) -> list[str]:
    """The one to start from, and those that run and fit; on a CPU only such as are predicted to take no longer."""
    now = known.option(PRECISION, _stored(known.config))
    if not known.is_free(PRECISION):
        return [now]
    usual, found = planned()[1], [now]
    on_cpu = usual.device.accelerator == "cpu"
    for name in ON_CPU if on_cpu else QUANTISED:
        if now.startswith(name) or not _fits(planned, f"{PRECISION}={name}"):
            continue
        if not on_cpu or planned(f"{PRECISION}={name}")[1].step_s <= usual.step_s:
            found.append(name)
    return found


def _stored(config: Config) -> str:
    precision = config.precision
    return "nf4_dq" if precision.storage is Storage.nf4 and precision.double_quant else precision.storage.value


def _fits(planned: Planned, word: str) -> bool:
    try:
        return planned(word)[1].fit.fits
    except UserError:  # a type that the device lacks, for one
        return False


def _heads(known: Known) -> list[Key]:
    """The heads whose answers have the same metrics, where no field of one was given."""
    if any(one.startswith("head.") for one in known.fixed):
        return []
    now, speaks = known.option(HEAD, "preference"), not family_of(known.config.model.shape.model_type).encoder
    if known.config.head.compares:
        words = ["causal"] if speaks and known.config.data.known_classes else []  # A, B and tie
        heads = [now, *(["bradley_terry_ties"] if _has_ties(known.config) else []), *words]
    elif now == "sequence":
        heads = [now, *(["causal"] if speaks and _begin_differently(known.classes) else [])]
    elif now == "ordinal":
        heads = [now, "sequence"]
    else:
        heads = [now]
    return [_choice(HEAD, heads)]


def _has_ties(config: Config) -> bool:
    labels = getattr(config.data, "tie_labels", None)
    return labels is None or bool(labels)  # the arena's columns always have one for ties


def _begin_differently(classes: Collection[str]) -> bool:
    # head=causal tells classes by the first token of their names, and different letters make different tokens.
    letters = [name.strip()[:1] for name in classes]
    return len(letters) > 1 and all(letters) and len(set(letters)) == len(letters)


def _poolings(known: Known) -> list[Key]:
    head = known.config.head
    if head.compares:
        return [_choice(SWAP, ["false", "true"])]
    if isinstance(pooling := getattr(head, "pooling", None), Enum):
        return [_choice(POOLING, [str(pooling.value), "last", "mean"])]
    return []


def _adapters(known: Known) -> list[Key]:
    adapter = known.config.lora
    if type(adapter) is not Lora:
        return []
    rank, blocks = str(adapter.rank), known.config.model.shape.num_hidden_layers
    found = [Key(RANK, tuple(sorted({*RANKS, rank}, key=int)), rank)]
    if adapter.targets == "all_linear":
        found.append(_choice(TARGETS, ["all_linear", "attention"]))
    if adapter.last_k is None and adapter.layers is None and "lora.layers" not in known.fixed:
        fewer = tuple(dict.fromkeys(str(blocks // one) for one in (4, 2) if blocks // one))
        found.append(Key(LAST_K, (*fewer, "null"), "null"))
    return found
