"""What a search draws from: one distribution per varied override, written to sweep.json and read back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from danube_sweep.config.options import SWEEP_OPTIONS
from danube_sweep.errors import CheckpointError, ConfigError

TAIL = 1e-6
"""How much of a normal distribution's tails is cut off, on either side."""


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, both included, in steps of `step` if given; whole if `whole`.

    With `log` its logarithm is uniform.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Normal:
    """A number with a normal distribution, or whose logarithm has one; rounded to multiples of `step` if given."""

    mean: float
    deviation: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Choice:
    """One of several values, each as the text that stands behind the = of an override."""

    values: list[str]


Distribution = Number | Normal | Choice
_KINDS: dict[str, type[Distribution]] = {"number": Number, "normal": Normal, "choice": Choice}


@dataclass(frozen=True)
class Search:
    """A search: `fixed` overrides of every trial, and the key of each varied override with its distribution."""

    fixed: list[str]
    space: dict[str, Distribution]

    def __post_init__(self) -> None:
        if not self.space:
            raise ConfigError("there is nothing to search: give at least one choice(…), range(…) or interval(…)")
        for key, distribution in self.space.items():
            if key.lstrip("+").partition(".")[0] in SWEEP_OPTIONS:
                raise ConfigError(f"{key} belongs to the sweep, not to a trial; give it one value")
            _check(key, distribution)


def _check(key: str, distribution: Distribution) -> None:
    match distribution:
        case Choice(values=[]):
            raise ConfigError(f"{key}: there is nothing to choose from; give at least one value")
        case Number(low=low, high=high) if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ConfigError(f"{key}: the interval from {low:g} to {high:g} is empty; give the lower end first")
        case Number(low=low, log=True) if low <= 0:
            raise ConfigError(f"{key}: a logarithmic interval must begin above 0, got {low:g}")
        case Number(step=float() | int() as step) | Normal(step=float() | int() as step) if step <= 0:
            raise ConfigError(f"{key}: the step must be above 0, got {step:g}")
        case Normal(deviation=deviation) if not deviation > 0:
            raise ConfigError(f"{key}: the standard deviation must be above 0, got {deviation:g}")


def drawn_text(distribution: Distribution, value: Any) -> str:
    """The override's value for what the sampler drew; for Normal a quantile from 0 to 1 was drawn."""
    match distribution:
        case Choice():
            return str(value)
        case Number(whole=whole, log=log, step=step):
            number = float(value)
            if log and step is not None:  # samplers know no steps on a logarithmic scale
                number = round(number / step) * step
            return _text(number, step, whole)
        case Normal(mean=mean, deviation=deviation, log=log, step=step):
            number = NormalDist(mean, deviation).inv_cdf(float(value))
            number = math.exp(number) if log else number
            return _text(number if step is None else round(number / step) * step, step, False)
    raise TypeError(f"no draw from {type(distribution).__name__}")


def _text(number: float, step: float | None, whole: bool) -> str:
    if step is not None:
        number = tidy(number)
        whole = whole or (float(step).is_integer() and float(number).is_integer())
    return str(round(number)) if whole else repr(number)


def tidy(number: float) -> float:
    """A number that was reached by steps, as a person would write it: 0.3 for 0.1 + 2 * 0.1."""
    return number if isinstance(number, int) else float(f"{number:.12g}")


def size(space: Mapping[str, Distribution]) -> float:
    """How many points the space has at most; infinite if a number has no steps."""
    return math.prod(_count(distribution) for distribution in space.values())


def _count(distribution: Distribution) -> float:
    match distribution:
        case Choice(values=values):
            return len(values)
        case Number(low=low, high=high, step=step, whole=whole) if whole or step is not None or low == high:
            return math.floor((high - low) / (step or 1) + 1e-9) + 1
        case Number() | Normal():
            return math.inf
    raise TypeError(f"no number of points in {type(distribution).__name__}")


def examples(search: Search) -> list[list[str]]:
    """Points of the space, as overrides, that are checked before anything is drawn: its two ends."""
    return [_corner(search, last) for last in (False, True)]


def _corner(search: Search, last: bool) -> list[str]:
    point = []
    for key, distribution in search.space.items():
        match distribution:
            case Choice(values=values):
                value: object = values[-1 if last else 0]
            case Number(low=low, high=high):
                value = high if last else low
            case Normal():
                value = 0.5
            case _:
                raise TypeError(f"no ends of {type(distribution).__name__}")
        point.append(f"{key}={drawn_text(distribution, value)}")
    return point


def described(space: Mapping[str, Distribution]) -> dict[str, Any]:
    """The space as JSON; `recognised` reads it."""
    names = {kind: name for name, kind in _KINDS.items()}
    return {key: {"kind": names[type(one)], **asdict(one)} for key, one in space.items()}


def recognised(node: Mapping[str, Any]) -> dict[str, Distribution]:
    """The inverse of `described`. Raises CheckpointError."""
    try:
        return {
            key: _KINDS[one["kind"]](**{name: value for name, value in one.items() if name != "kind"})
            for key, one in node.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("sweep.json: the search space is damaged; start the sweep in a new folder") from error
