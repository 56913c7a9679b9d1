"""The needs of a trial, or of every combination of swept values, from configs alone. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from danube_sweep.benchmark.plan_benchmark import BenchmarkPlan, plan_trial
from danube_sweep.benchmark.scored_parts import tasks_on_test
from danube_sweep.composer import Composer, choices, parse_sweep
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.data.kind import DataSize
from danube_sweep.data.kinds.generated import GeneratedData
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, UserError
from danube_sweep.planner.trial_plan import TrialPlan, plan_of
from danube_sweep.sweeping.propose.grid_cells import expand

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
    fixed = [one for one, swept in zip(overrides, parsed, strict=False) if not swept.is_sweep_override()]
    sweep = composer.sweep([one for one in fixed if one.startswith("sweep.")])[0]
    cells = expand(parsed, sweep.max_trials) if multirun else [list(overrides)]
    planned = [_planned(cell, composer, sweep.slots) for cell in cells]
    wrong = [one.error for one in planned if one.error is not None]
    if len(wrong) == len(planned):
        raise ConfigError(wrong[0])
    return planned, sweep


def _planned(overrides: list[str], composer: Composer, slots: int | None) -> Planned:
    try:
        config = _composed(overrides, composer)
        # Nobody asked for the demo data: how long an epoch of them takes answers no question.
        demo = isinstance(config.data, GeneratedData) and not any(one.startswith("data=") for one in overrides)
        size = None if demo else data_size(config.data)
        if size is None:
            return Planned(overrides, plan_of(config, slots=slots), config=config, benchmark=plan_trial(config))
        plan = plan_of(config, rows=size.rows, tokens_per_row=size.tokens_per_row, slots=slots)
        return Planned(overrides, plan, size, config=config, benchmark=plan_trial(config))
    except UserError as error:
        return Planned(overrides, error=str(error))


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
