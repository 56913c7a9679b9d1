"""The plan of a night with its times, as it is printed before anything trains."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from rich.table import Table
from rich.text import Text

from danube_sweep.planner.memory import GIB
from danube_sweep.terminal.screen import human
from danube_sweep.tonight.backbones import Backbone
from danube_sweep.tonight.costs import STARTING_S, predict_s, reserve_s, trial_s
from danube_sweep.tonight.next_round import Best, Moment, Round, best_so_far, first_look, moment_of, round_around
from danube_sweep.tonight.night_folder import NightFolder

MOST_VALUES: Final = 4
"""That are listed one by one."""


def plan_table(night: NightFolder, backbones: Sequence[Backbone]) -> Table:
    """A row for each round and stage: what it does and how long it takes by prediction, or may take.

    The rounds are those of a night in which the best trial so far, or the usual settings, stay the best.
    """
    assert night.asked is not None
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style, justify in (("cyan", "left"), ("", "left"), ("", "right")):
        table.add_column(style=style, justify="right" if justify == "right" else "left")
    dear = max(backbones, key=lambda one: trial_s(night, one, one.first))
    end_s = reserve_s(night, dear, dear.first)
    for one in backbones:
        plan = one.plan(one.first)
        capacity = "" if plan.fit.capacity_bytes is None else f" of {plan.fit.capacity_bytes / GIB:.1f}"
        fit = f"{plan.fit.memory.total / GIB:.2f}{capacity} GiB on {plan.device.name}"
        table.add_row(Text("backbone"), Text(f"{one.name}: {fit}; {_searched(one)}"), Text(_each(night, one)))
    now = moment_of(night)
    for led, name, coming in _rounds(now, backbones):
        table.add_row(Text(name), Text(led + _said(coming)), Text(human(coming.seconds)))
    table.add_row(
        Text("search"),
        Text("the neighbours of better settings, and more epochs, while time is left"),
        Text(f"in all at most {human(max(now.left_s - end_s, 0.0))}"),
    )
    table.add_row(Text("confirm"), Text("rows tied with the best, again with fresh seeds"), Text("in that time"))
    table.add_row(
        Text("ensemble or refit"), Text("whichever validation says"), Text(human(end_s - predict_s(night, dear)))
    )
    table.add_row(Text("predict, report"), Text(night.asked.test), Text(human(predict_s(night, dear) + STARTING_S)))
    return table


def plan_lines(night: NightFolder, backbones: Sequence[Backbone]) -> list[str]:
    """Where it goes and how long it takes at most."""
    assert night.asked is not None
    rows = backbones[0].start.size
    counted = "" if rows is None else f"{rows.rows:,} rows to train on; "
    figures = backbones[0].plan(backbones[0].first).device.figures
    whole = human(night.asked.hours * 3600)
    return [
        "the rounds are those of a night in which these settings stay the best; each round is chosen by the last",
        f"{counted}at most {whole}; times are predicted ({figures}) and corrected by each round",
        "",
    ]


def _each(night: NightFolder, backbone: Backbone) -> str:
    return f"{human(trial_s(night, backbone, backbone.first))} a trial"


def _searched(backbone: Backbone) -> str:
    """The settings of the first trial, each with the other values that may be tried."""
    others = {key.name: [one for one in key.values if one != key.start] for key in backbone.space.keys}
    told = [f"{name}={value}" + _or(others.get(name, [])) for name, value in backbone.first.items()]
    return ", ".join(told) or "all settings are given"


def _or(values: Sequence[str]) -> str:
    if not values:
        return ""
    return f" ({', '.join(values)})" if len(values) <= MOST_VALUES else f" ({values[0]} to {values[-1]})"


def _rounds(now: Moment, backbones: Sequence[Backbone]) -> Iterator[tuple[str, str, Round]]:
    """Which backbone a round is for, its name, and the round."""
    seen = {str(cell["backbone"]) for one in now.night.ran for cell in one.cells}
    while (look := first_look(now, backbones, seen)) is not None:
        yield f"{look.backbone.name}: ", look.stage, look
        now, seen = _after(now, look), {*seen, look.backbone.name}
    best = best_so_far(now.night, backbones)
    leading = [best] if best is not None else [_usual(one) for one in backbones if one.name in seen]
    for one in leading:
        then = now
        led = f"if {one.backbone.name} leads: " if len(leading) > 1 else ""
        while isinstance(coming := round_around(then, one), Round):
            yield led, coming.stage, coming
            then = _after(then, coming)


def _usual(backbone: Backbone) -> Best:
    return Best(backbone, backbone.first, backbone.hash(backbone.first))


def _after(now: Moment, coming: Round) -> Moment:
    return replace(now, known={*now.known, *(cell["hash"] for cell in coming.new)}, left_s=now.left_s - coming.seconds)


def _said(coming: Round) -> str:
    """The settings that vary, or that differ from the first trial's."""
    first = coming.backbone.first
    told = [
        f"{name}={','.join(values)}"
        for name, values in coming.values.items()
        if len(values) > 1 or values[0] != first.get(name)
    ]
    return f"{' '.join(told) or 'the usual settings'} ({len(coming.new)} trial{'s' * (len(coming.new) != 1)})"
