"""`danube-sweep plan`: the needs of trials, from their configs alone. Imports no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from danube_sweep.config.validate import SHARDED
from danube_sweep.planner.memory import GIB
from danube_sweep.planner.trial_plan import TrialPlan
from danube_sweep.planner.what_fits import FITS, TIGHT
from danube_sweep.sweeping.plan_cells import Planned, lines_of_benchmarks, lines_of_packs, plan_cells, varied_values
from danube_sweep.terminal.screen import Terminal, duration, human

NOTHING = "fits in no way that the planner knows: take a smaller model or data.max_length"
GAP = 2
DROPPED = ("disk", "grads", "work", "trained", "states", "params", "activ.", "weights", "epoch")
"""Columns that a narrow terminal leaves out, the least important first."""
LABELS = {"trained": "adapter, head"}
PARTS = ("weights", "trained", "gradients", "optimizer", "activations", "workspace")


def show_plan(
    overrides: Sequence[str], terminal: Terminal, *, multirun: bool, as_json: bool, config_dir: Path | None = None
) -> None:
    """Shows the plan of a trial, or with `multirun` of every combination of the swept values.

    `config_dir`: a folder of options beside ours. Raises UserError for a mistake: of a sweep only if no cell is without
    one.
    """
    planned, sweep = plan_cells(overrides, multirun=multirun, config_dir=config_dir)
    if as_json:
        print(json.dumps([_plain(one) for one in planned], indent=1))
    elif multirun:
        terminal.show(_table(planned, terminal.width))
        for line in [*lines_of_benchmarks(planned, sweep), *lines_of_packs(planned, sweep)]:
            terminal.note(line)
    else:
        assert planned[0].plan is not None
        terminal.show(_trial_table(planned[0], planned[0].plan))


def _plain(one: Planned) -> dict[str, object]:
    told = {"error": one.error} if one.plan is None else one.plan.plain()
    benchmark = {} if one.benchmark is None else {"benchmark_seconds": one.benchmark.plain()}
    return {"overrides": one.overrides, **told, **benchmark}


# ------------------------------------------------------------------------------------------------------ the table


def _trial_table(planned: Planned, plan: TrialPlan) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    memory = plan.fit.memory
    rows = [
        ("parameters", f"{plan.parameters:,}, of which {plan.trained:,} train"),
        ("precision", f"weights in {plan.storage}, arithmetic in {plan.compute}"),
        ("rows", f"{plan.micro_batch} in a forward pass, {plan.effective_batch} in a step"),
        *((LABELS.get(name, name), _gib(getattr(memory, name))) for name in PARTS),
        ("peak", f"in {memory.moment}: {_gib(memory.peak)} of tensors, {_gib(memory.total)} with margins "
                 f"(context {memory.context / GIB:.2f}, allocator {memory.slack / GIB:.2f})"),
        ("device", _capacity(plan)),
        ("verdict", _verdict(plan)),
        ("time", _times(planned, plan)),
        *_benchmark_row(planned),
        ("disk", f"{_gib(plan.disk_bytes)}: three checkpoints and the product"),
    ]  # fmt: skip
    if memory.paged:
        rows.insert(5, ("paged", f"{_gib(memory.paged)} of optimizer states, in host memory when the GPU is full"))
    rows += [("estimated", guess) for guess in plan.estimated]
    rows += [("device.count", said) for said in (planned.why_count, _several(plan)) if said is not None]
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
    return [(key.rpartition(".")[2], values) for key, values in varied_values(planned).items()]


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
        "fits": plan.fit.verdict,
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
        elif one.plan.fit.verdict == TIGHT:
            said.setdefault(_tightly(one.plan), []).append(number)
        elif one.plan.device.cannot_run is not None:
            said.setdefault(f"planned only: {one.plan.device.cannot_run}", []).append(number)
        if one.plan is not None and (several := _several(one.plan)) is not None:
            said.setdefault(several, []).append(number)
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
        word = FITS if plan.fit.verdict == FITS else _tightly(plan)
        return word if plan.device.cannot_run is None else f"{word}, but {plan.device.cannot_run}"
    return f"no; would fit with {plan.change}" if plan.change else f"no: {NOTHING}"


def _several(plan: TrialPlan) -> str | None:
    # Memory and time with device.count, beside those of one device alone.
    if (several := plan.several) is None:
        return None
    share, needs, alone = several.share, _gib(plan.fit.memory.total), _gib(several.alone.memory.total)
    whole = f"{share.whole:g} micro-batch{'es' * (share.whole != 1)} of {plan.micro_batch}"
    parts = f"{share.parts} part{'s' * (share.parts != 1)} of {share.rows}"
    passes = " and ".join([*([whole] if share.whole else []), *([parts] if share.parts else [])])
    gathered = "; the seconds leave out the gathering of divided weights" if plan.device.sharding == SHARDED else ""
    return (
        f"{several.count} devices: each passes {passes} rows in a step and needs {needs}; "
        f"a step takes {human(plan.step_s)}, {human(several.exchange_s)} of it to sum gradients ({several.link}); "
        f"one alone takes {human(several.alone_step_s)} and needs {alone}{gathered}"
    )


def _tightly(plan: TrialPlan) -> str:
    return f"{TIGHT}: measured runs took up to {plan.fit.spread:.0%} more than predicted"


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


def _benchmark_row(planned: Planned) -> list[tuple[str, str]]:
    if planned.benchmark is None:
        return []
    return [("benchmark", f"before and after training, each time {planned.benchmark.said()}")]


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number < 1e9 else f"{number / 1e9:,.2f}B"
