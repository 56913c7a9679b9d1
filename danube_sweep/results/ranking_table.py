"""A ranking as a table in the terminal, and in a few lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.results.early_rows import ended_early, regret_lines
from danube_sweep.results.rows import FINISHED, Ranking, Row, ties, winner
from danube_sweep.results.trial_results import UNDER_WAY
from danube_sweep.terminal.screen import encodable

GAP: Final = 2
PLUS_MINUS: Final = "\N{PLUS-MINUS SIGN}"
_NARROWEST: Final = 6
"""Signs that a varied value keeps when the terminal is too narrow for it."""
_WORTH_SHOWING: Final = 12
"""Signs of a reason that are worth a column."""


@dataclass(frozen=True)
class TableColumn:
    """A column of the table; `cells` by row."""

    title: str
    cells: list[str]
    keep: int = 0
    """The larger, the sooner it gives way to the width of the terminal; 0 before a number is cut, -1 never."""
    varied: bool = False
    left: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.title, *self.cells]))


@dataclass(frozen=True)
class _Drawn:
    """Drawn when printed: only the console knows which signs it can show."""

    ranking: Ranking
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width, options.max_width)
        every = columns_of(self.ranking, _plus_minus(console))
        shown = _fitted(every, width)
        left_out = len(every) - len(shown)
        more = f"; {left_out} more column{'s' if left_out > 1 else ''} in ranking.csv" if left_out else ""
        for line in nothing_learned_lines(self.ranking):
            yield Text(encodable(plain(line), console), style="bold")
        yield Text(f"ranked by {self.ranking.metric} ({self.ranking.goal}){more}", style="bold")
        yield _table(self.ranking, shown, console)


def ranking_table(ranking: Ranking, width: int) -> _Drawn:
    """A rich renderable at most `width` characters wide. The least important columns are left out first, values are cut
    last.
    """
    return _Drawn(ranking, width)


def _plus_minus(console: Console) -> str:
    return PLUS_MINUS if encodable(PLUS_MINUS, console) == PLUS_MINUS else "+-"


def _table(ranking: Ranking, columns: Sequence[TableColumn], console: Console) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in columns:
        header = Text(encodable(column.title, console), style="cyan")
        table.add_column(header, justify="left" if column.left else "right", no_wrap=True, overflow="crop")
    best = winner(ranking)
    for place, row in enumerate(ranking.shown):
        cells = [Text(encodable(column.cells[place], console)) for column in columns]
        table.add_row(*cells, style="bold" if row is best else "")
    return table


def columns_of(ranking: Ranking, plus_minus: str) -> list[TableColumn]:
    """Every column that has something to say, in the order of the table."""
    rows, best = ranking.shown, winner(ranking)
    titles = short_titles(ranking.varied)
    given = [TableColumn("#", [str(row.rank or "") for row in rows], keep=-1)]
    given += [
        TableColumn(titles[key], [plain(shown(row.values[key])) for row in rows], varied=True, left=True)
        for key in ranking.varied
    ]
    given += _objective_columns(ranking, plus_minus)
    given += [
        TableColumn("vs best", ["best" if row is best else _difference(row) for row in rows]),
        TableColumn("95 %", [_interval(row) for row in rows], keep=2),
        TableColumn("regret", ["" if row.regret is None else f"{row.regret:.0%}" for row in rows], keep=5),
        TableColumn("validations", [str(row.readings or "") for row in rows], keep=6),
        TableColumn("front", ["*" if row.front else "" for row in rows]),
        *(_number_columns(ranking, "", [row.metrics for row in rows])),
        *(_number_columns(ranking, "test ", [row.test for row in rows])),
        *_benchmark_columns(rows),
        *_count_columns(rows),
        TableColumn("seconds", [_maybe(row.seconds, "{:,.0f}") for row in rows], keep=5),
        TableColumn("packed", _packed(rows), keep=8),
        TableColumn("tokens/s", [_maybe(row.tokens_per_s, "{:,.0f}") for row in rows], keep=10),
        TableColumn("GiB", [_maybe(row.peak_memory_bytes, "{:.2f}", 2**30) for row in rows], keep=9),
        TableColumn("predicted", [_maybe(row.predicted_memory_bytes, "{:.2f}", 2**30) for row in rows], keep=12),
    ]
    if any(row.state != COMPLETE[0] for row in rows):
        given.append(TableColumn("state", [row.state for row in rows], left=True))
    given.append(TableColumn("reason", [plain(row.error or "") for row in rows], keep=11, left=True))
    return [column for column in given if column.varied or any(column.cells)]


def _benchmark_columns(rows: Sequence[Row]) -> list[TableColumn]:
    """The score after training, and its change by training, for each task of trainer.benchmark."""
    columns = []
    for task in dict.fromkeys(task for row in rows for task in row.benchmark):
        found = [row.benchmark.get(task, {}) for row in rows]
        columns.append(TableColumn(task, [_maybe(one.get("after"), None) for one in found], keep=4))
        columns.append(TableColumn(f"{task} change, 95 %", [benchmark_change(one) for one in found], keep=3))
    return columns


def benchmark_change(found: Mapping[str, float]) -> str:
    """The change of a task's score by training, with its interval."""
    if "change" not in found:
        return ""
    ends = [number(found[name], "+") for name in ("change_low", "change_high") if name in found]
    return number(found["change"], "+") + (f" ({' .. '.join(ends)})" if len(ends) == 2 else "")


def _count_columns(rows: Sequence[Row]) -> list[TableColumn]:
    """Folds and seeds, each where a row has several."""
    folds = [row.folds is not None and len(row.by_fold) > 1 for row in rows]
    seeds = [row.seed_count > 1 for row in rows]
    return [
        TableColumn("folds", [_folds(row) if any(folds) and row.used else "" for row in rows], keep=3),
        TableColumn("seeds", [_seeds(row, rows) if any(seeds) else "" for row in rows], keep=3),
    ]


def _packed(rows: Sequence[Row]) -> list[str]:
    """How many trials trained together, where any did."""
    if all((row.packed or 1) == 1 for row in rows):
        return [""] * len(rows)
    return [str(row.packed or "") for row in rows]


def _seeds(row: Row, rows: Sequence[Row]) -> str:
    """`3`, or `1 of 3` where another row has more."""
    most = max(one.seed_count for one in rows)
    return str(row.seed_count or "") if row.seed_count == most else f"{row.seed_count} of {most}"


def _folds(row: Row) -> str:
    """`5`, or `3 of 5` while some are missing."""
    if row.folds is None:
        return ""
    done = len(row.by_fold)
    return str(done) if done == row.folds else f"{done} of {row.folds}"


def _objective_columns(ranking: Ranking, plus_minus: str) -> list[TableColumn]:
    columns = []
    for place, (metric, _) in enumerate(ranking.objectives):
        cells = []
        for row in ranking.shown:
            mean, deviation = row.objectives[place], row.deviation if place == 0 else None
            spread = "" if deviation is None else f" {plus_minus}{number(deviation)}"
            cells.append("" if mean is None else number(mean) + spread)
        columns.append(TableColumn(metric.rpartition("/")[2], cells, keep=-1, left=True))
    return columns


_KEEP = {"log_loss": 1, "accuracy": 4, "perplexity": 6, "macro_f1": 7, "ece": 8}


def _number_columns(ranking: Ranking, prefix: str, tables: Sequence[dict[str, float]]) -> list[TableColumn]:
    ranked = () if prefix else tuple(metric for metric, _ in ranking.objectives)
    names = dict.fromkeys(name for table in tables for name in table)
    return [
        TableColumn(prefix + name, [_maybe(table.get(name), None) for table in tables], keep=_KEEP.get(name, 8))
        for name in names
        if f"validation/{name}" not in ranked
    ]


def short_titles(keys: Sequence[str]) -> dict[str, str]:
    """The last word of each key, or the whole key where two would share it."""
    counted = Counter(_last_word(key) for key in keys)
    return {key: plain(_last_word(key) if counted[_last_word(key)] == 1 else key) for key in keys}


def _last_word(key: str) -> str:
    return key.rpartition(".")[2] or key


def _fitted(columns: Sequence[TableColumn], width: int) -> list[TableColumn]:
    """The columns that fit into `width`, and of the reason as much as there is room for."""
    reason = [column for column in columns if column.title == "reason" and not column.varied]
    kept = [column for column in columns if column not in reason]
    while _width(kept) > width and any(column.keep > 0 for column in kept):
        kept.remove(max(kept, key=lambda column: column.keep))
    while _width(kept) > width:
        widest = max((column for column in kept if column.varied), key=lambda column: column.width, default=None)
        if widest is None or widest.width <= _NARROWEST:
            break
        kept[kept.index(widest)] = _cut(widest, max(_NARROWEST, widest.width - (_width(kept) - width)))
    while _width(kept) > width and any(column.keep == 0 for column in kept):
        kept.remove([column for column in kept if column.keep == 0][-1])
    room = width - _width(kept) - GAP
    return [*kept, *(_cut(column, room) for column in reason if room >= _WORTH_SHOWING)]


def _width(columns: Sequence[TableColumn]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def _cut(column: TableColumn, width: int) -> TableColumn:
    return replace(column, title=_short(column.title, width), cells=[_short(cell, width) for cell in column.cells])


def _short(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    if "/" in text:  # the end of a path is more telling than its start
        while cell_len(text) > width - 2:
            text = text[1:]
        return ".." + text
    return set_cell_size(text, width - 2).rstrip() + ".."


def shown(value: Any) -> str:
    """A varied value in a cell."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.4g}"
    return str(value)


def plain(text: str) -> str:
    """One line without control signs, which could move the cursor or turn the text around."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()


def number(value: float, sign: str = "") -> str:
    """A metric in a cell, rounded; `sign="+"` for a difference."""
    if abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    return f"{value:{sign}.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:{sign}.1e}"


def _maybe(value: float | None, form: str | None, unit: int = 1) -> str:
    if value is None:
        return ""
    return number(value) if form is None else form.format(value / unit)


def _difference(row: Row) -> str:
    if row.difference is None:
        return ""
    return number(row.difference, "+") + (" tie" if row.tie else "")


def _interval(row: Row) -> str:
    return "" if row.interval is None else " .. ".join(number(end, "+") for end in row.interval)


def summary_lines(ranking: Ranking) -> list[str]:
    """That nothing was learned, if so, and the lines below the table."""
    return [*map(plain, nothing_learned_lines(ranking)), *lines_below(ranking)]


def lines_below(ranking: Ranking) -> list[str]:
    """How many trials are in which state, the failed ones with their reason, notes, and last the answer.

    That nothing was learned is the first line of the table.
    """
    counted = Counter(trial.state for trial in ranking.trials)
    states = ", ".join(f"{count} {state}" for state, count in counted.most_common()) or "none"
    failed = [trial for trial in ranking.trials if trial.state not in (*COMPLETE, *UNDER_WAY)]
    return [
        *map(plain, cheaper_rival_lines(ranking)),
        f"{len(ranking.trials)} trial{'s' * (len(ranking.trials) != 1)}: {states}",
        *(plain(f"{one.trial}: {one.state}{': ' + one.reason if one.reason else ''}") for one in failed),
        *map(plain, ranking.notes),
        *([plain(ranking.covers)] if ranking.covers else []),
        *regret_lines(ranking),
        plain(answer(ranking)),
    ]


def nothing_learned(ranking: Ranking) -> bool:
    """Whether the best row is known not to beat answering without reading by more than chance."""
    return ranking.prior is not None and ranking.prior.nothing_learned


def nothing_learned_lines(ranking: Ranking) -> list[str]:
    """One line, or none where the best row is better than answering without reading, or nobody knows."""
    said = nothing_learned_statement(ranking)
    return [] if said is None or ranking.prior is None else [f"{said}; {'; '.join(ranking.prior.reasons)}"]


_OF_NUMBERS = ("mse", "rmse", "mae", "pearson", "spearman")


def nothing_learned_statement(ranking: Ranking) -> str | None:
    """That line without its reasons."""
    best, prior = winner(ranking), ranking.prior
    if best is None or best.mean is None or prior is None or not nothing_learned(ranking):
        return None
    name = "always the mean" if ranking.metric.rpartition("/")[2] in _OF_NUMBERS else "the class prior"
    ends = [] if prior.half is None else [prior.better_by - prior.half, prior.better_by + prior.half]
    between = f", 95 % {' .. '.join(number(end, '+') for end in ends)}" if ends else ""
    beaten = f"does not beat {name}, {number(prior.value)}, by more than chance"
    better = f"(better by {number(prior.better_by, '+')}{between})"
    return f"nothing was learned: {ranking.metric} {number(best.mean)} {beaten} {better}"


def cheaper_rival_lines(ranking: Ranking) -> list[str]:
    """One line, or none if the best row is better than every baseline or there is no baseline."""
    best = winner(ranking)
    if best is None or best.mean is None or not ranking.baselines:
        return []
    sign = -1 if ranking.goal == "maximize" else 1
    ahead = [row for row in ranking.baselines if row.difference is not None and sign * row.difference <= 0]
    if not ahead:
        return []
    rival = min(ahead, key=lambda row: sign * (row.difference or 0.0))
    sure = ", which can be chance" if rival.tie or rival.interval is None else " by more than chance"
    how = f"the baseline is better{sure}" if rival.difference else "they are equal"
    return [
        f"a linear model does as well: baseline {rival.baseline} reaches {ranking.metric} {number(rival.mean or 0.0)}, "
        f"the best row {number(best.mean)}; {how}"
    ]


def answer(ranking: Ranking) -> str:
    """The best row, how good it is and how sure that is."""
    best = winner(ranking)
    if best is None or best.mean is None:
        if any(trial.state == FINISHED for trial in ranking.trials):
            return f"no ranking: no finished trial has {ranking.metric}, as where no rows validate"
        return "no trial has finished yet" if _goes_on(ranking) else "no trial has finished"
    test = "".join(f", test {name} {number(value)}" for name, value in list(best.test.items())[:1])
    label = "no answer, as nothing was learned; first" if nothing_learned(ranking) else "best"
    sure = "" if best.own_interval is None else ", 95 % {} .. {}".format(*map(number, best.own_interval))
    found = f"{ranking.metric} {number(best.mean)}{_means_of(best)}{sure}{test}"
    return f"{label}: {named(best)}: {found}{_standing(ranking, best)}"


def _means_of(row: Row) -> str:
    if row.count <= 1 and row.folds is None:
        return ""
    folds = f"{_folds(row)} folds" if row.folds is not None else ""
    if len({len(seeds) for seeds in row.by_fold.values()}) > 1:  # a fold of more seeds weighs more
        return f" (mean of {row.count} trials in {folds})"
    seeds = f"{row.seed_count} seeds" if row.seed_count > 1 else ""
    return f" (mean of {' x '.join(filter(None, (folds, seeds)))})"


def _goes_on(ranking: Ranking) -> bool:
    return any(trial.state in UNDER_WAY for trial in ranking.trials)


def named(row: Row) -> str:
    """A row by its varied values."""
    return ", ".join(f"{key}={shown(value)}" for key, value in row.values.items()) or row.used[0]


def _standing(ranking: Ranking, best: Row) -> str:
    if len(ranking.objectives) > 1:
        front = sum(row.front for row in ranking.rows)
        return f"; {front} row{'s are' if front > 1 else ' is'} on the Pareto front"
    others = [row for row in ranking.rows if row.difference is not None]
    lost = f"; it has lost trials: {best.lost}" if best.lost else ended_early(best)
    said = lost + _above(others, best.rank or 1)
    if tied := len(ties(ranking)):
        return f"{said}; tied with {tied} other{'s' * (tied > 1)} (95 % interval of the difference holds 0)"
    if not others or said or not all(row.interval is not None for row in others):
        return said
    chance = "chance" if ranking.noise is not None else "chance, the rows' own spread taken for training noise"
    return f"{said}; every other row is worse by more than {chance}"


def _above(others: Sequence[Row], rank: int) -> str:
    """Rows that have a better number and are not compared."""
    above = [row for row in others if row.rank is not None and row.rank < rank]
    return f"; {len(above)} row{'s' * (len(above) > 1)} with fewer trials ranked above it" if above else ""
