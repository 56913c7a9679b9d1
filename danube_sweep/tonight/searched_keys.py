"""The space of a night: its keys, their values, and the neighbours of a trial. docs/tonight.md gives the reasons."""

from dataclasses import dataclass, field, replace
from typing import final

LR, OPTIMIZER, PRECISION = "optimizer.lr", "optimizer", "precision"
HEAD, POOLING, SWAP = "head", "head.pooling", "data.swap_augment"
RANK, TARGETS, LAST_K = "lora.rank", "lora.targets", "lora.last_k"
EPOCHS_KEY, VALIDATE = "trainer.epochs", "trainer.validate_every"
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


@final
@dataclass(frozen=True)
class Space:
    """The keys that a backbone is searched in, the most telling first."""

    keys: list[Key]
    rates: dict[str, tuple[str, ...]]
    """By optimizer, the rates at the same places: of each its usual rate, in factors of 2."""
    validated: dict[str, str] = field(default_factory=dict)
    """By epochs, the steps between validations, where five validations would take longer than the training."""

    @property
    def first(self) -> Settings:
        """The settings of the first trial."""
        return self._validated({key.name: key.start for key in self.keys})

    def _validated(self, settings: Settings) -> Settings:
        if not self.validated or EPOCHS_KEY not in settings:
            return settings
        return {**settings, VALIDATE: self.validated.get(settings[EPOCHS_KEY], "null")}

    @property
    def alternatives(self) -> int:
        """Settings that differ from the first trial in one key, its rate and epochs aside."""
        return sum(len(self.moves(self.first, key)) for key in self.keys if key.name not in (LR, EPOCHS_KEY))

    def moves(self, settings: Settings, key: Key) -> list[Settings]:
        """The settings beside some, by one key and those that follow from it.

        Another optimizer is tried at the same place of its own rates, and at the two beside it.
        """
        if key.name not in settings:
            return []
        if key.name == LR:
            key = replace(key, values=self.rates[settings.get(OPTIMIZER, next(iter(self.rates)))])
        moved = [{**settings, key.name: value} for value in key.neighbours(settings[key.name])]
        if key.name == OPTIMIZER and LR in settings:
            return [one for some in moved for one in self._at_three_rates(some, settings)]
        if key.name == HEAD:
            return [self._with_pooling(one) for one in moved]
        return [self._validated(one) for one in moved] if key.name == EPOCHS_KEY else moved

    def _at_three_rates(self, moved: Settings, before: Settings) -> list[Settings]:
        place = self.rates[before[OPTIMIZER]].index(before[LR])
        rates = self.rates[moved[OPTIMIZER]]
        return [{**moved, LR: rates[one]} for one in (place, place + 1, place - 1) if 0 <= one < len(rates)]

    def _with_pooling(self, settings: Settings) -> Settings:
        # head=causal reads the last token, and has no pooling.
        start = next((key.start for key in self.keys if key.name == POOLING), None)
        others = {name: value for name, value in settings.items() if name != POOLING}
        if start is None or settings[HEAD] == "causal":
            return others
        return {**others, POOLING: settings.get(POOLING, start)}


def with_start(space: Space, name: str, start: str) -> Space:
    """The space, from another value of a key on."""
    return replace(space, keys=[replace(key, start=start) if key.name == name else key for key in space.keys])
