"""The tables of `danube-sweep benchmark`: one model's tasks, several models side by side, and the names of tasks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from danube_sweep.benchmark.find_tasks import harness_folder, names_in
from danube_sweep.benchmark.pinned_tasks import PINNED
from danube_sweep.results.ranking_table import PLUS_MINUS
from danube_sweep.terminal.screen import Terminal

_MOST_LISTED = 200
_SHARE = re.compile(r"(^|_)(acc|accuracy|match|f1|em|mcc|mc1|mc2)(_|$)")
"""In the harness's names of metrics between 0 and 1, which are shown in per cent. Others, as a perplexity or BLEU, are
shown as they are."""


def show_cells(cells: Sequence[Mapping[str, Any]], terminal: Terminal) -> None:
    """Prints the scores of one model, or a row for each of several; then the notes."""
    if len(cells) == 1:
        terminal.show(_tasks_table(cells[0]))
    else:
        terminal.show(_models_table(cells))
    for cell in cells:
        if cell["state"] != "finished":
            terminal.note(f"{cell['title']}: {cell['state']}: {cell.get('error') or _errors(cell)}")
    for note in dict.fromkeys(note for cell in cells for note in cell.get("notes", [])):
        terminal.note(note)


def _errors(cell: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name}: {one.get('error', one['state'])}" for name, one in cell["tasks"].items() if "value" not in one
    )


def _tasks_table(cell: Mapping[str, Any]) -> Table:
    tasks = cell["tasks"]
    compared = any("change" in one for one in tasks.values())
    published = any(one.get("published") is not None for one in tasks.values())
    titles = ["metric", "shots", "items", f"score {PLUS_MINUS} standard error"]
    titles += ["before", "change, 95 %"] * compared + ["published"] * published
    table = _table(["task", *titles])
    for name, one in tasks.items():
        if "value" not in one:
            table.add_row(Text(name), Text(one["state"]))
            continue
        cells = [one["metric"].removesuffix(",none"), str(one["shots"]), str(one["items"]), scored(one)]
        if compared:
            cells += [_number(one, one["before"]["value"]), _change(one)] if "change" in one else ["", ""]
        if published:
            cells.append("" if one["published"] is None else f"{one['published']:.2f}")
        table.add_row(Text(name), *map(Text, cells))
    return table


def _models_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for cell in cells for name in cell["tasks"]))
    table = _table(["model", *names])
    said: set[str] = set()
    for cell in cells:
        found = cell["tasks"]
        shown = [scored(found[name]) if "value" in found.get(name, {}) else cell["state"] for name in names]
        table.add_row(Text(cell["title"]), *map(Text, shown))
        path = str(cell.get("model", {}).get("path"))
        figures = [found.get(name, {}).get("published") for name in names]
        if path not in said and any(figure is not None for figure in figures):
            said.add(path)
            table.add_row(Text(f"published: {path}"), *("" if one is None else f"{one:.2f}" for one in figures))
    return table


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(Text(title, style="cyan"), justify="left" if place == 0 else "right")
    return table


def scored(one: Mapping[str, Any]) -> str:
    """A score with its standard error, shares in per cent."""
    spread = "" if one["stderr"] is None else f" {PLUS_MINUS} {_number(one, one['stderr'])}"
    return _number(one, one["value"]) + spread


def _change(one: Mapping[str, Any]) -> str:
    change = one["change"]
    ends = (
        ""
        if change["interval"] is None
        else " ({} .. {})".format(*(_number(one, end, "+") for end in change["interval"]))
    )
    return _number(one, change["value"], "+") + ends


def _number(one: Mapping[str, Any], value: float, sign: str = "") -> str:
    if _SHARE.search(one["metric"].partition(",")[0]):
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.4g}"


def listed_tasks(word: str, tasks_dir: Path | None) -> str:
    """The six of the post, your own tasks and, with a word, the harness's names that hold it."""
    lines = ["tasks=post"]
    lines += [f"  {one.name:<16}{one.shots:>3} shots  {one.metric:<25}  {one.note}" for one in PINNED]
    if tasks_dir is not None:
        lines += [f"--tasks-dir {tasks_dir}", *(f"  {name}" for name in sorted(names_in(tasks_dir)))]
    every = names_in(harness_folder())
    if not word:
        return "\n".join([*lines, f"lm_eval: {len(every):,} names; danube-sweep benchmark --list WORD searches them"])
    found = sorted(name for name in every if word.lower() in name.lower())
    more = [f"  … and {len(found) - _MOST_LISTED:,} more"] if len(found) > _MOST_LISTED else []
    return "\n".join(
        [*lines, f"lm_eval, with {word}: {len(found):,}", *(f"  {one}" for one in found[:_MOST_LISTED]), *more]
    )
