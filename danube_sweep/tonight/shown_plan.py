"""The plan of a night with its times, as it is printed before anything trains."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from danube_sweep.planner.memory import GIB
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.terminal.screen import human
from danube_sweep.tonight.backbones import Backbone
from danube_sweep.tonight.costs import STARTING_S, predict_s, reserve_s, trial_s
from danube_sweep.tonight.night_folder import NightFolder


def plan_table(night: NightFolder, backbones: Sequence[Backbone]) -> Table:
    """A row for each stage: what it does and how long it takes by prediction, or may take."""
    assert night.asked is not None
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for style in ("cyan", "", "right"):
        table.add_column(style="" if style == "right" else style, justify="right" if style == "right" else "left")
    dear = max(backbones, key=lambda one: trial_s(night, one, one.first))
    end_s = reserve_s(night, dear, dear.first)
    for one in backbones:
        plan = plan_of(one.trial(one.first))
        capacity = "" if plan.fit.capacity_bytes is None else f" of {plan.fit.capacity_bytes / GIB:.1f}"
        fit = f"{plan.fit.memory.total / GIB:.2f}{capacity} GiB on {plan.device.name}"
        said = ", ".join(f"{name}={value}" for name, value in one.first.items())
        each = f"{human(trial_s(night, one, one.first))} each"
        table.add_row(Text("first look"), Text(f"{one.name}: {fit}; around {said}"), Text(each))
    hours_s = night.asked.hours * 3600
    varied = ", ".join(dict.fromkeys(key.name for one in backbones for key in one.keys))
    searched = f"neighbours of the best trial in {varied or 'nothing: all is given'}, packed and paused by rank"
    table.add_row(Text("search"), Text(searched), Text(f"at most {human(max(hours_s - end_s, 0.0))}"))
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
    figures = plan_of(backbones[0].trial(backbones[0].first)).device.figures
    whole = human(night.asked.hours * 3600)
    return [f"{counted}at most {whole}; times are predicted ({figures}) and corrected by each round", ""]
