"""`danube-sweep plan`: what trials would need, from their configs alone. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from danube_sweep.composer import Composer, parse_sweep
from danube_sweep.config.schema import Config
from danube_sweep.data.kind import DataSize
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, UserError
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.trial_plan import TrialPlan, plan_of
from danube_sweep.sweeping.propose.grid_cells import expand
from danube_sweep.terminal.screen import Terminal, duration, human

NEEDED_PATH = "data.path is required"
NOTHING = "fits in no way that the planner knows: take a smaller model or data.max_length"
GAP = 2
DROPPED = ("disk", "grads", "work", "trained", "states", "params", "activ.", "weights", "epoch")
"""What a narrow terminal does without, first what matters least."""
NO_FILE = "no-file-yet"
LABELS = {"trained": "adapter, head"}
PARTS = ("weights", "trained", "gradients", "optimizer", "activations", "workspace")


@dataclass(frozen=True)
class Planned:
    """A cell of the plan: its overrides, and its plan or what is wrong with it."""

    overrides: list[str]
    plan: TrialPlan | None = None
    size: DataSize | None = None
    """Of its data; None where there are none."""
    error: str | None = None


def show_plan(overrides: Sequence[str], terminal: Terminal, *, multirun: bool, as_json: bool) -> None:
    """Shows the plan of a trial, or with `multirun` of every combination of the swept values.

    Raises UserError for a mistake: of a sweep only if no cell is without one.
    """
    if hydras := [one for one in overrides if one.startswith(("hydra/", "hydra."))]:
        raise ConfigError(f"{hydras[0]}: a plan is of given values; leave it out, and give a choice for an interval")
    composer = Composer()
    parsed = parse_sweep(overrides) if multirun else []
    fixed = [one for one, swept in zip(overrides, parsed, strict=False) if not swept.is_sweep_override()]
    sweep = composer.sweep([one for one in fixed if one.startswith("sweep.")])[0]
    cells = expand(parsed, sweep.max_trials) if multirun else [list(overrides)]
    planned = [_planned(cell, composer, sweep.slots) for cell in cells]
    wrong = [one.error for one in planned if one.error is not None]
    if len(wrong) == len(planned):
        raise ConfigError(wrong[0])
    if as_json:
        print(json.dumps([_plain(one) for one in planned], indent=1))
    elif multirun:
        terminal.show(_table(planned, terminal.width))
    else:
        assert planned[0].plan is not None
        terminal.show(_trial_table(planned[0], planned[0].plan))


def _planned(overrides: list[str], composer: Composer, slots: int | None) -> Planned:
    try:
        config = _composed(overrides, composer)
        size = data_size(config.data)
        if size is None:
            return Planned(overrides, plan_of(config, slots=slots))
        plan = plan_of(config, rows=size.rows, tokens_per_row=size.tokens_per_row, slots=slots)
        return Planned(overrides, plan, size)
    except UserError as error:
        return Planned(overrides, error=str(error))


def _composed(overrides: list[str], composer: Composer) -> Config:
    # A plan needs no data: a file that is not named yet only leaves out how long an epoch takes.
    try:
        return composer.trial(overrides)
    except ConfigError as error:
        if not str(error).startswith(NEEDED_PATH):
            raise
    return composer.trial([*overrides, f"data.path={NO_FILE}"])


def _plain(one: Planned) -> dict[str, object]:
    told = {"error": one.error} if one.plan is None else one.plan.plain()
    return {"overrides": one.overrides, **told}


# ------------------------------------------------------------------------------------------------------ what is shown


def _trial_table(planned: Planned, plan: TrialPlan) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    memory = plan.fit.memory
    rows = [
        ("parameters", f"{plan.parameters:,}, of which {plan.trained:,} train"),
        ("rows", f"{plan.micro_batch} in a forward pass, {plan.effective_batch} in a step"),
        *((LABELS.get(name, name), _gib(getattr(memory, name))) for name in PARTS),
        ("peak", f"in {memory.moment}: {_gib(memory.peak)} of tensors, {_gib(memory.total)} with margins "
                 f"(context {memory.context / GIB:.2f}, allocator {memory.slack / GIB:.2f})"),
        ("device", _capacity(plan)),
        ("verdict", _verdict(plan)),
        ("time", _times(planned, plan)),
        ("disk", f"{_gib(plan.disk_bytes)}: three checkpoints and the product"),
    ]  # fmt: skip
    if memory.paged:
        rows.insert(5, ("paged", f"{_gib(memory.paged)} of optimizer states, in host memory when the GPU is full"))
    rows += [("estimated", guess) for guess in plan.estimated]
    for name, value in rows:
        table.add_row(Text(name, style="cyan"), Text(value))
    return table


def _table(planned: Sequence[Planned], width: int) -> RenderableType:
    columns = [("#", [str(number) for number in range(1, len(planned) + 1)]), *_varied(planned)]
    left = len(columns)
    cells = [_cells(one) for one in planned]
    columns += [(name, [row[name] for row in cells]) for name in cells[0]]
    dropped = [name for name in DROPPED if name in cells[0]]
    while sum(max(map(len, [name, *texts])) + GAP for name, texts in columns) > width and dropped:
        gone = dropped.pop(0)
        columns = [one for one in columns if one[0] != gone]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for number, (name, _) in enumerate(columns):
        table.add_column(name, justify="left" if 0 < number < left or name == "fits" else "right", no_wrap=True)
    for row in zip(*(texts for _, texts in columns), strict=True):
        table.add_row(*map(Text, row))
    return Group(table, *(Text(line) for line in _notes(planned, len(DROPPED) - len(dropped))))


def _varied(planned: Sequence[Planned]) -> list[tuple[str, list[str]]]:
    values = [dict(word.partition("=")[::2] for word in one.overrides) for one in planned]
    keys = [key for key in values[0] if len({given.get(key) for given in values}) > 1]
    return [(key.rpartition(".")[2], [given.get(key, "") for given in values]) for key in keys]


def _cells(one: Planned) -> dict[str, str]:
    if one.plan is None:
        names = ("fits", "of", "total", "weights", "grads", "states", "activ.", "work")
        return {**dict.fromkeys((*names, "params", "trained", "s/step", "epoch", "disk"), ""), "fits": "refused"}
    plan, memory, share = one.plan, one.plan.fit.memory, one.plan.fit.share
    sizes = {
        "total": memory.total,
        "weights": memory.weights,
        "grads": memory.gradients,
        "states": memory.optimizer,
        "activ.": memory.activations,
        "work": memory.workspace,
    }
    return {
        "fits": "unknown" if share is None else "yes" if plan.fit.fits else "no",
        "of": "" if share is None else f"{share:.0%}",
        **{name: f"{size / GIB:.2f}" for name, size in sizes.items()},
        "params": _count(plan.parameters),
        "trained": _count(plan.trained),
        "s/step": f"{plan.step_s:.3g}",
        "epoch": "" if plan.epoch_s is None else duration(plan.epoch_s),
        "disk": f"{plan.disk_bytes / GIB:.2f}",
    }


def _notes(planned: Sequence[Planned], left_out: int) -> list[str]:
    said: dict[str, list[int]] = {}
    for number, one in enumerate(planned, 1):
        if one.plan is None:
            said.setdefault(f"refused: {one.error}", []).append(number)
        elif not one.plan.fit.fits:
            said.setdefault(f"would fit with {one.plan.change}" if one.plan.change else NOTHING, []).append(number)
        elif one.plan.device.cannot_run is not None:
            said.setdefault(f"planned only: {one.plan.device.cannot_run}", []).append(number)
        for guess in [] if one.plan is None else one.plan.estimated:
            said.setdefault(f"estimated: {guess}", []).append(number)
    figures = sorted({one.plan.device.figures for one in planned if one.plan is not None})
    lines = [f"{', '.join(map(str, numbers))}: {text}" for text, numbers in said.items()]
    if left_out:
        lines.append(f"{left_out} more column{'s' if left_out > 1 else ''} in a wider terminal, and with --json")
    units = "GiB, the total with adapters and margins; s/step on rows of data.max_length, epoch at the data's lengths"
    return [*lines, f"{units}; devices' figures: {', '.join(figures)}"]


def _verdict(plan: TrialPlan) -> str:
    if plan.fit.capacity_bytes is None:
        return "unknown: give device.memory_gib or a named device"
    if plan.fit.fits:
        return "fits" if plan.device.cannot_run is None else f"fits, but {plan.device.cannot_run}"
    return f"no; would fit with {plan.change}" if plan.change else f"no: {NOTHING}"


def _capacity(plan: TrialPlan) -> str:
    known = plan.fit.capacity_bytes
    if known is None:
        return f"{plan.device.name}, of unknown memory"
    return f"{plan.device.name} with {known / GIB:.1f} GiB: {plan.fit.share or 0:.0%}"


def _times(planned: Planned, plan: TrialPlan) -> str:
    figures = f"({plan.device.figures})"
    step = f"{human(plan.step_s)} a step of full rows"
    if planned.size is None or plan.epoch_s is None or plan.training_s is None:
        return f"{step} {figures}; an epoch is unknown: its data are no file here"
    rows = f"{planned.size.rows:,} rows of about {planned.size.tokens_per_row:.0f} tokens"
    return f"{step}, {human(plan.epoch_s)} an epoch of {rows}, {human(plan.training_s)} in all {figures}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number < 1e9 else f"{number / 1e9:,.2f}B"
