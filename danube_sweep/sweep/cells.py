"""The cells of a grid: counted before they are expanded, and every one composed and checked before any trains."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from danube_sweep.errors import ConfigError, UserError
from danube_sweep.schema import Config, Sweep
from danube_sweep.sweep.space import Choice, Distribution, Number, Search
from danube_sweep.trial import trial_hash
from danube_sweep.validate_sweep import check_metric


@dataclass(frozen=True)
class Cells:
    """The cells that can train, and those with a mistake: overrides and what is wrong."""

    valid: list[tuple[Config, list[str]]] = field(default_factory=list)
    invalid: list[tuple[list[str], str]] = field(default_factory=list)


def expand(overrides: Sequence[Override], most: int) -> list[list[str]]:
    """Every combination of the swept values, in the order of the command.

    Raises ConfigError, before anything is expanded, for more than `most` cells and for what is no grid.
    """
    size = math.prod(_length(override) for override in overrides)
    if size > most:
        raise ConfigError(
            f"the grid has {size:,} cells, more than sweep.max_trials={most:,}; sweep fewer values or raise it"
        )
    last = {override.get_key_element(): override for override in overrides}  # a key given twice: the last one counts
    return [list(cell) for cell in itertools.product(*(_values(override) for override in last.values()))]


def _length(override: Override) -> int:
    match override.value() if override.is_sweep_override() else None:
        case RangeSweep(start=start, stop=stop, step=step):
            return _range_length(float(start or 0), float(stop or 0), float(step))
        case ChoiceSweep(list=values):
            return len(values)
        case IntervalSweep():
            key = override.get_key_element()
            raise ConfigError(f"{key}: a grid cannot take an interval; use choice(…), range(…) or hydra/sweeper=optuna")
    return 1  # a glob has at most as many values as its group has options


def _range_length(start: float, stop: float, step: float) -> int:
    return max(0, math.ceil((stop - start) / step)) if step else 0


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise ConfigError(f"{override.input_line}: there is nothing to sweep over; give at least one value")
    return values


def search_of(overrides: Sequence[Override]) -> Search:
    """The search that Hydra's own sweep syntax describes. Raises ConfigError for what cannot be searched."""
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    swept = [override for override in overrides if override.is_sweep_override()]
    return Search(fixed, {override.get_key_element(): _distribution(override) for override in swept})


def _distribution(override: Override) -> Distribution:
    match override.value():
        case IntervalSweep(start=start, end=end, tags=tags):
            whole = isinstance(start, int) and isinstance(end, int)
            assert start is not None and end is not None
            return Number(start, end, log="log" in tags, whole=whole)
        case RangeSweep(start=start, stop=stop, step=step, tags=tags) if not tags & {"log"}:
            assert start is not None and stop is not None
            length = _range_length(float(start), float(stop), float(step))
            whole = all(isinstance(number, int) for number in (start, stop, step))
            if length == 0 or step < 0:
                raise ConfigError(f"{override.input_line}: the range is empty or falls; give range(low,high,step)")
            return Number(start, start + (length - 1) * step, step=float(step), whole=whole)
    return Choice([value.partition("=")[2] for value in _values(override)])


def check(cells: Sequence[list[str]], compose: Callable[[Sequence[str]], Config], sweep: Sweep) -> Cells:
    """Composes and checks every cell; what is wrong with one is kept beside its overrides."""
    checked = Cells()
    for overrides in cells:
        try:
            config = compose(overrides)
            check_metric(sweep, config)
            trial_hash(config)  # reads the files that a trial means
            checked.valid.append((config, overrides))
        except UserError as error:
            checked.invalid.append((overrides, str(error)))
    return checked


def shared(cells: Sequence[list[str]]) -> set[str]:
    """The overrides that all cells have: what a trial's folder is not named by."""
    return set(cells[0]).intersection(*map(set, cells[1:]))
