"""The needs of a trial, or of every combination of swept values, from configs alone. Imports no torch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from danube_sweep.benchmark.plan_benchmark import BenchmarkPlan, plan_trial
from danube_sweep.benchmark.scored_parts import tasks_on_test
from danube_sweep.composer import Composer, choices, parse_sweep
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.validate import AUTO
from danube_sweep.data.kind import DataSize
from danube_sweep.data.kinds.generated import GeneratedData
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, UnknownArchitecture, UserError
from danube_sweep.planner.pack_plan import LengthsOf, full_rows
from danube_sweep.planner.slots_or_ranks import CountChoice, choose_count, least_count
from danube_sweep.planner.trial_plan import TrialPlan, plan_of
from danube_sweep.sweeping.propose.fits_device import ways_of
from danube_sweep.sweeping.propose.grid_cells import expand, refuse_swept_settings

NEEDED_PATH = "data.path is required"
NO_FILE = "no-file-yet"


@dataclass(frozen=True)
class Planned:
    """A cell of the plan: its overrides, and its plan or its error."""

    overrides: list[str]
    plan: TrialPlan | None = None
    size: DataSize | None = None
    """Of its data; None without any."""
    error: str | None = None
    config: Config | None = None
    benchmark: BenchmarkPlan | None = None
    """A pass over its tasks of trainer.benchmark."""
    why_count: str | None = None
    """What device.count=auto chooses for this trial alone, and why; None where there is nothing to choose."""


def plan_cells(
    overrides: Sequence[str], *, multirun: bool, config_dir: Path | None = None
) -> tuple[list[Planned], Sweep]:
    """The plan of a trial, or with `multirun` of every combination of the swept values; and the sweep that they make.

    `config_dir`: a folder of options beside ours. Raises UserError for a mistake: of a sweep only if no cell is without
    one.
    """
    if hydras := [one for one in overrides if one.startswith(("hydra/", "hydra."))]:
        raise ConfigError(f"{hydras[0]}: a plan is of given values; leave it out, and give a choice for an interval")
    composer, overrides = Composer(config_dir=config_dir), choices(overrides)
    parsed = parse_sweep(overrides) if multirun else []
    refuse_swept_settings(swept.key_or_group for swept in parsed if swept.is_sweep_override())
    fixed = [one for one, swept in zip(overrides, parsed, strict=False) if not swept.is_sweep_override()]
    sweep = composer.sweep([one for one in fixed if one.startswith("sweep.")])[0]
    cells = expand(parsed, sweep.max_trials) if multirun else [list(overrides)]
    planned = [_planned(cell, composer, sweep, alone=not multirun) for cell in cells]
    wrong = [one.error for one in planned if one.error is not None]
    if len(wrong) == len(planned):
        raise ConfigError(wrong[0])
    return planned, sweep


def _planned(overrides: list[str], composer: Composer, sweep: Sweep, *, alone: bool) -> Planned:
    try:
        config = _composed(overrides, composer)
        # Nobody asked for the demo data: how long an epoch of them takes answers no question.
        demo = isinstance(config.data, GeneratedData) and not any(one.startswith("data=") for one in overrides)
        size = None if demo else data_size(config.data)
        placed, why = _placed(config, sweep, None if size is not None else full_rows, alone=alone)
        if size is None:
            plan = plan_of(placed, slots=sweep.slots)
        else:
            plan = plan_of(placed, rows=size.rows, tokens_per_row=size.tokens_per_row, slots=sweep.slots)
        return Planned(overrides, plan, size, config=config, benchmark=plan_trial(config), why_count=why)
    except UserError as error:
        return Planned(overrides, error=str(error))


def _placed(config: Config, sweep: Sweep, lengths: LengthsOf | None, *, alone: bool) -> tuple[Config, str | None]:
    # With device.count=auto on as many devices as would train it alone, and why; in a sweep on the fewest that it fits.
    if config.device.count != AUTO:
        return config, None
    chosen = CountChoice(1, None)
    with suppress(UnknownArchitecture):
        if alone:
            chosen = choose_count([config], ways_of(config, replace(sweep, pack=1, slots=1), lengths))
        else:
            chosen = CountChoice(least_count(config, ways_of(config, sweep, lengths)) or 1, None)
    why = None if chosen.why is None else f"{AUTO}: {chosen.why}"
    return replace(config, device=replace(config.device, count=chosen.count)), why


def lines_of_packs(planned: Sequence[Planned], sweep: Sweep) -> list[str]:
    """The packs and hours of the sweep that the cells make; none for cells of several devices."""
    known = [one for one in planned if one.config is not None and one.plan is not None and one.plan.fit.fits]
    configs = [one.config for one in known if one.config is not None]
    devices = {repr(config.device) for config in configs}
    if len(configs) < 2 or len(devices) > 1:
        return []
    if any(one.size is None and one.config is not None and not one.config.trainer.max_steps for one in known):
        return ["packs and hours of the sweep: give data.path, since both follow from its rows"]
    from danube_sweep.sweeping.dry_run import pack_lines  # for a sweep alone

    return pack_lines(configs, sweep)


def lines_of_benchmarks(planned: Sequence[Planned], sweep: Sweep) -> list[str]:
    """How long trainer.benchmark takes in a sweep, each line after the numbers of its cells."""
    said: dict[str, list[int]] = {}
    for number, one in enumerate(planned, 1):
        if one.benchmark is None or one.config is None:
            continue
        on_test = set(tasks_on_test(one.config))
        own = BenchmarkPlan([task for task in one.benchmark.passes if task.name not in on_test])
        for_winner = BenchmarkPlan([task for task in one.benchmark.passes if task.name in on_test])
        if own.passes:
            text = "benchmark: after training, and before it once for each backbone"
            said.setdefault(f"{text}, {own.said()}", []).append(number)
        if for_winner.passes and sweep.score_test:
            names = ", ".join(task.name for task in for_winner.passes)
            text = f"benchmark: {names} has a test split, so twice for the winner alone"
            said.setdefault(f"{text}, {for_winner.said()}", []).append(number)
    return [f"{', '.join(map(str, numbers))}: {text}" for text, numbers in said.items()]


def _composed(overrides: list[str], composer: Composer) -> Config:
    # A plan needs no data: a file that is not named yet only leaves out how long an epoch takes.
    try:
        return composer.trial(overrides)
    except ConfigError as error:
        if not str(error).startswith(NEEDED_PATH):
            raise
    return composer.trial([*overrides, f"data.path={NO_FILE}"])


def varied_values(planned: Sequence[Planned]) -> dict[str, list[str]]:
    """By key that the cells differ in: the value of each cell, in their order."""
    values = [dict(word.partition("=")[::2] for word in one.overrides) for one in planned]
    keys = [key for key in values[0] if len({given.get(key) for given in values}) > 1]
    return {key: [given.get(key, "") for given in values] for key in keys}
