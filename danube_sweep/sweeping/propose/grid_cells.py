"""The cells of a grid: counted before they are expanded, and every one composed and checked before any trains."""

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.override_parser.types import Sweep as Swept

from danube_sweep.benchmark.scored_parts import check_benchmark
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config, OnMisfit, Sampler, Sweep
from danube_sweep.config.validate import check_package, check_place, check_runs, check_types
from danube_sweep.config.validate.check_sweep import check_metric
from danube_sweep.errors import ConfigError, MisfitError, UserError
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.sweeping.propose.fits_device import misfit_of
from danube_sweep.sweeping.propose.search_space import Choice, Distribution, Number, Search, Weighted, examples, tidy


@dataclass(frozen=True)
class Cells:
    """The cells that can train, those with a mistake, and those left out as they do not fit: overrides and reason."""

    valid: list[tuple[Config, list[str]]] = field(default_factory=list)
    invalid: list[tuple[list[str], str]] = field(default_factory=list)
    left_out: list[tuple[list[str], str]] = field(default_factory=list)


def expand(overrides: Sequence[Override], most: int) -> list[list[str]]:
    """Every combination of the swept values, in the order of the command. Of a key given twice, the last one counts.

    Raises ConfigError, before anything is expanded, for more than `most` cells and for values that form no grid.
    """
    axes = _last_of_each(overrides)
    size = math.prod(_length(override) for override in axes)
    if size > most:
        raise ConfigError(
            f"the grid has {size:,} cells, more than sweep.max_trials={most:,}; sweep fewer values or raise it"
        )
    return [list(cell) for cell in itertools.product(*map(_values, axes))]


def _last_of_each(overrides: Sequence[Override]) -> list[Override]:
    last: dict[str, Override] = {}
    for override in overrides:
        _refuse_split_path(override)
        last.pop(override.get_key_element(), None)
        last[override.get_key_element()] = override
    return list(last.values())


def _refuse_split_path(override: Override) -> None:
    # A file called a,b.csv would be two values.
    field, _, value = str(override.input_line).partition("=")
    if override.is_sweep_override() and "," in value and Path(value).expanduser().exists():
        raise ConfigError(f"""{field}={value} is a file with a comma in its name; quote it: '{field}="{value}"'""")


def _length(override: Override) -> int:
    match override.value():
        case RangeSweep() as swept:
            return _range_length(override, swept)
        case IntervalSweep():
            key = override.get_key_element()
            raise ConfigError(f"{key}: a grid cannot take an interval; use choice(…), range(…) or hydra/sweeper=optuna")
    return len(_values(override))


def _range_length(override: Override, swept: RangeSweep) -> int:
    start, stop, step = float(swept.start or 0), float(swept.stop or 0), float(swept.step)
    if not (math.isfinite(start) and math.isfinite(stop) and math.isfinite(step) and step):
        raise ConfigError(f"{override.input_line}: the range has no end; give range(low,high) or range(low,high,step)")
    return max(0, math.ceil((stop - start) / step - 1e-9))  # 0.1 + 3 * 0.1 is above 0.4, and no value of its own


def _values(override: Override) -> list[str]:
    key, swept = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        # ~key=null would delete nothing but a null.
        unvalued = override.is_delete() and swept is None
        return [key if unvalued else f"{key}={override.get_value_element_as_str()}"]
    if isinstance(swept, RangeSweep):
        values = [str(tidy((swept.start or 0) + k * swept.step)) for k in range(_range_length(override, swept))]
        if swept.shuffle:
            random.shuffle(values)
    elif isinstance(swept, ChoiceSweep) and any(isinstance(value, Swept) for value in swept.list):
        raise ConfigError(f"{override.input_line}: a choice of ranges or intervals cannot be swept; give values")
    else:
        values = list(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{override.input_line}: there is nothing to sweep over; give at least one value")
    return [f"{key}={value}" for value in values]


def search_of(overrides: Sequence[Override]) -> Search:
    """The search that Hydra's own sweep syntax describes. Raises ConfigError for values that cannot be searched."""
    last = _last_of_each(overrides)
    fixed = [_values(override)[0] for override in last if not override.is_sweep_override()]
    swept = [override for override in last if override.is_sweep_override()]
    return Search(fixed, {override.get_key_element(): _distribution(override) for override in swept})


def _distribution(override: Override) -> Distribution:
    match override.value():
        case IntervalSweep(start=start, end=end, tags=tags):
            _check_tags(override, tags)
            whole = isinstance(start, int) and isinstance(end, int)
            assert start is not None and end is not None
            return Number(start, end, log="log" in tags, whole=whole)
        case RangeSweep() as swept:
            return _stepped(override, swept)
        case ChoiceSweep() as swept:
            swept.shuffle = False  # a search that continues must find its values in the same order
    return Choice([value.partition("=")[2] for value in dict.fromkeys(_values(override))])


def _check_tags(override: Override, tags: Collection[str]) -> None:
    if unknown := sorted(set(tags) - {"log"}):
        raise ConfigError(f"{override.input_line}: no such tag: {unknown[0]}; there is log, for a logarithmic scale")


def _stepped(override: Override, swept: RangeSweep) -> Number:
    _check_tags(override, swept.tags)
    start, step, length = swept.start or 0, swept.step, _range_length(override, swept)
    if length == 0 or step < 0:
        raise ConfigError(f"{override.input_line}: the range is empty or falls; give range(low,high,step)")
    whole = all(isinstance(number, int) for number in (start, swept.stop, step))
    last = tidy(start + (length - 1) * step)
    if "log" not in swept.tags:
        return Number(start, last, step=step, whole=whole)
    if not whole or step != 1:
        raise ConfigError(f"{override.input_line}: no steps on a logarithmic scale; give tag(log,interval(low,high))")
    return Number(start, last, log=True, whole=True)


def check_cells(cells: Sequence[list[str]], compose: Callable[[Sequence[str]], Config], sweep: Sweep) -> Cells:
    """Composes and checks every cell. The error of a cell is kept beside its overrides."""
    checked = Cells()
    for overrides in cells:
        try:
            config = compose(overrides)
            check_metric(sweep, config)
            check_benchmark(sweep, config)
            check_place(config.device)
            check_package(config.tracking)
            device = planned_device(config.device)
            check_runs(device)
            check_types(config.precision, device.types, device.name)
            trial_hash(config, planning=sweep.dry_run)  # reads the files that a trial means
            found = misfit_of(config, sweep)
        except UserError as error:
            skipped = isinstance(error, MisfitError) and sweep.on_misfit is OnMisfit.skip
            (checked.left_out if skipped else checked.invalid).append((overrides, str(error)))
            continue
        if found is None or (sweep.on_misfit is OnMisfit.shrink and found.rows is not None):
            checked.valid.append((config, overrides))
        elif sweep.on_misfit is OnMisfit.error:
            checked.invalid.append((overrides, f"{found.reason} (or sweep.on_misfit=skip or shrink)"))
        else:
            checked.left_out.append((overrides, found.reason))
    return checked


def check_search(search: Search, compose: Callable[[Sequence[str]], Config], sweep: Sweep) -> Config:
    """One trial of a search. A key that is both drawn and given is a mistake, and so are more trials than allowed.

    Raises ConfigError if both ends of the space are invalid: then the mistake is in the fixed overrides.
    """
    if sweep.trials is not None and sweep.trials > sweep.max_trials:
        raise ConfigError(
            f"sweep.trials={sweep.trials} is more than sweep.max_trials={sweep.max_trials}; give sweep.trials="
            f"{sweep.max_trials}, or raise sweep.max_trials"
        )
    given = {one.lstrip("+~").partition("=")[0] for one in search.fixed}
    if twice := sorted(given & {key.lstrip("+~") for key in search.space}):
        raise ConfigError(f"{twice[0]} is drawn by the search; leave out the fixed value, or take it from the search")
    numbers = sum(not isinstance(one, Choice | Weighted) for one in search.space.values())
    if sweep.sampler is Sampler.cmaes and numbers < 2:
        raise ConfigError(f"sweep.sampler=cmaes draws two numbers or more, and this space has {numbers}; use tpe or gp")
    checked = check_cells([[*search.fixed, *point] for point in examples(search)], compose, sweep)
    if not checked.valid:
        raise ConfigError([*checked.invalid, *checked.left_out][0][1])
    return checked.valid[0][0]


def refuse_swept_settings(keys: Iterable[str]) -> None:
    """Raises ConfigError for a key that varies from trial to trial and belongs to the sweep."""
    for key in keys:
        if key.partition(".")[0] in SWEEP_OPTIONS:
            raise ConfigError(f"{key} belongs to the sweep, not to a trial; give it one value")


def shared(cells: Sequence[list[str]]) -> set[str]:
    """The overrides that all cells have, none without cells. They stay out of the folders' names."""
    return set(cells[0]).intersection(*map(set, cells[1:])) if cells else set()


def depends_on(override: str, varied: Collection[str]) -> bool:
    """Whether an override sets a field of a group whose option is among the keys that vary, and may lack it then."""
    group, dot, _ = override.lstrip("+~").partition("=")[0].partition(".")
    several = len(OPTIONS.get(group, ())) > 1
    return bool(dot) and several and (group in varied or "experiment" in varied)
