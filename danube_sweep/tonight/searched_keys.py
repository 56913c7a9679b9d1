"""The settings that a night may try, by the kind of answer: docs/tonight.md gives the reason for each."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from danube_sweep.config.schema import Config, Lora

RATES: Final = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Times the model's usual rate."""
EPOCHS: Final = ("1", "2", "3", "4", "6", "10")
RANKS: Final = ("4", "16", "64")
HEADS: Final = ("preference", "bradley_terry_ties")
LR, EPOCHS_KEY, HEAD = "optimizer.lr", "trainer.epochs", "head"
Settings = dict[str, str]


@final
@dataclass(frozen=True)
class Key:
    """A setting and its values. Of an ordered one only the next values are tried, of others all."""

    name: str
    values: tuple[str, ...]
    start: str
    ordered: bool = True
    only_up: bool = False

    def neighbours(self, value: str) -> list[str]:
        """The values to try beside a value, the higher one first."""
        if not self.ordered:
            return [one for one in self.values if one != value]
        place = self.values.index(value)
        below = [] if self.only_up or place == 0 else [self.values[place - 1]]
        return [*self.values[place + 1 : place + 2], *below]


def keys_of(config: Config, fixed: Collection[str], epochs: str) -> list[Key]:
    """The keys of a trial's kind, the most telling first; `fixed` are the fields that somebody has given."""
    lr, head = config.optimizer.lr, config.head
    found = [Key(LR, tuple(f"{lr * one:.3g}" for one in RATES), f"{lr:.3g}")]
    if head.compares:
        own = any(one.startswith("head.") for one in fixed)
        found += [] if own or not _has_ties(config) else [Key(HEAD, HEADS, HEADS[0], ordered=False)]
        found.append(Key("data.swap_augment", ("false", "true"), "false", ordered=False))
    elif isinstance(pooling := getattr(head, "pooling", None), Enum):
        now = str(pooling.value)
        found.append(Key("head.pooling", tuple(dict.fromkeys([now, "last", "mean"])), now, ordered=False))
    if type(config.lora) is Lora:
        rank = str(config.lora.rank)
        found.append(Key("lora.rank", tuple(sorted({*RANKS, rank}, key=int)), rank))
    if config.trainer.max_steps is None:
        found.append(Key(EPOCHS_KEY, EPOCHS, epochs, only_up=True))
    return [key for key in found if key.name not in fixed]


def _has_ties(config: Config) -> bool:
    labels = getattr(config.data, "tie_labels", None)
    return labels is None or bool(labels)  # the arena's columns always have one for ties


def settings_at_start(keys: list[Key]) -> Settings:
    """The settings of the first trial."""
    return {key.name: key.start for key in keys}
