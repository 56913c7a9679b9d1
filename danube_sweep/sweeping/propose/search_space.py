"""The space of a search: one distribution per varied override, written to sweep.json and read back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from danube_sweep.config.options import SWEEP_OPTIONS
from danube_sweep.errors import CheckpointError, ConfigError

TAIL = 1e-6
"""How much of the tails of a normal or beta distribution is cut off, on either side."""

_CLOSE = 1e-9
"""Two ends that are this close, in steps, are the same."""


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
class Rounded:
    """A number drawn anywhere from `low` to `high`, then rounded to a multiple of `step`, halves to the even one.

    With `log` the logarithm of the drawn number is uniform. The multiples at the two ends are drawn less often.
    """

    low: float
    high: float
    step: float
    log: bool = False

    def ends(self) -> tuple[int, int]:
        """The first and the last multiple of `step` with a probability above 0, in steps."""
        first = math.floor(self.low / self.step + 0.5 + _CLOSE)
        return first, max(first, math.ceil(self.high / self.step - 0.5 - _CLOSE))


@dataclass(frozen=True)
class Normal:
    """A number with a normal distribution, or whose logarithm has one; rounded to multiples of `step` if given."""

    mean: float
    deviation: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Beta:
    """A number between 0 and 1 with a beta distribution; rounded to multiples of `step` if given."""

    a: float
    b: float
    step: float | None = None


@dataclass(frozen=True)
class Choice:
    """One of several values, each as the text that stands behind the = of an override."""

    values: list[str]


@dataclass(frozen=True)
class Weighted:
    """One of several values, each as the text of an override, with its probability; together they are 1."""

    values: list[str]
    probabilities: list[float]

    def possible(self) -> list[str]:
        """The values with a probability above 0, each once."""
        pairs = zip(self.values, self.probabilities, strict=True)
        return list(dict.fromkeys(value for value, probability in pairs if probability > 0))


Distribution = Number | Rounded | Normal | Beta | Choice | Weighted
_KINDS: dict[str, type[Distribution]] = {
    "number": Number,
    "rounded": Rounded,
    "normal": Normal,
    "beta": Beta,
    "choice": Choice,
    "weighted": Weighted,
}


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
    if not isinstance(distribution, Choice | Weighted) and distribution.step is not None and distribution.step <= 0:
        raise ConfigError(f"{key}: the step must be above 0, got {distribution.step:g}")
    match distribution:
        case Choice(values=[]) | Weighted(values=[]):
            raise ConfigError(f"{key}: there is nothing to choose from; give at least one value")
        case Number(low=low, high=high) | Rounded(low=low, high=high) if not -math.inf < low <= high < math.inf:
            raise ConfigError(f"{key}: the interval from {low:g} to {high:g} is empty; give the lower end first")
        case Number(low=low, log=True) | Rounded(low=low, log=True) if low <= 0:
            raise ConfigError(f"{key}: a logarithmic interval must begin above 0, got {low:g}")
        case Normal(deviation=deviation) if not deviation > 0:
            raise ConfigError(f"{key}: the standard deviation must be above 0, got {deviation:g}")
        case Normal() if not _has_numbers_in_its_tails(distribution):
            raise ConfigError(f"{key}: its largest draws are more than a number can hold; lower the mean or deviation")
        case Beta(a=a, b=b) if not (a > 0 and b > 0):
            raise ConfigError(f"{key}: a and b of a beta distribution must be above 0, got {a:g} and {b:g}")


def _has_numbers_in_its_tails(distribution: Normal) -> bool:
    try:
        return all(math.isfinite(float(drawn_text(distribution, quantile))) for quantile in (TAIL, 1 - TAIL))
    except OverflowError:
        return False


def drawn_text(distribution: Distribution, value: Any) -> str:
    """The override's value for a drawn `value`. For Normal, Beta and Weighted, that is a quantile from 0 to 1."""
    match distribution:
        case Choice():
            return str(value)
        case Weighted():
            return _at_quantile(distribution, float(value))
        case Number(whole=whole, log=log, step=step):
            number = float(value)
            if log and step is not None:  # in sweeps of earlier versions; samplers know no steps on this scale
                number = round(number / step) * step
            return _text(number, step, whole)
        case Rounded(step=step):
            first, last = distribution.ends()  # some samplers like to draw an end itself, which may be half a step
            return _text(min(max(round(float(value) / step), first), last) * step, step, False)
        case Normal(mean=mean, deviation=deviation, log=log, step=step):
            number = NormalDist(mean, deviation).inv_cdf(float(value))
            return _rounded_text(math.exp(number) if log else number, step)
        case Beta(a=a, b=b, step=step):
            from scipy.special import betaincinv

            return _rounded_text(float(betaincinv(a, b, float(value))), step)
    raise TypeError(f"no draw from {type(distribution).__name__}")


def _at_quantile(distribution: Weighted, quantile: float) -> str:
    sums = accumulate(distribution.probabilities)
    reached = (value for value, so_far in zip(distribution.values, sums, strict=True) if quantile < so_far)
    return next(reached, distribution.possible()[-1])


def _rounded_text(number: float, step: float | None) -> str:
    return _text(number if step is None else round(number / step) * step, step, False)


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
        case Weighted():
            return len(distribution.possible())
        case Rounded():
            first, last = distribution.ends()
            return last - first + 1
        case Beta(step=float() | int() as step):
            return _count(Rounded(0.0, 1.0, step))
        case Number(low=low, high=high, step=step, whole=whole) if whole or step is not None or low == high:
            return math.floor((high - low) / (step or 1) + 1e-9) + 1
        case Number() | Normal() | Beta():
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
            case Number(low=low, high=high) | Rounded(low=low, high=high):
                value = high if last else low
            case Weighted():
                value = 1.0 if last else 0.0
            case Normal() | Beta():
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
