"""A ranking as ranking.csv and ranking.md."""

import csv
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.results.ranking_table import PLUS_MINUS, TableColumn, columns_of, plain, summary_lines
from danube_sweep.results.rows import Ranking, Row
from danube_sweep.storage.files import write_text
from danube_sweep.storage.outputs import refuse_existing

BENCHMARKED = ("before", "after", "change", "change_low", "change_high")
"""The values of a row for each task of trainer.benchmark."""


def write(ranking: Ranking, folder: Path, *, overwrite: bool = False) -> None:
    """Writes ranking.csv in full precision and ranking.md, rounded, each whole or not at all.

    Raises DiskError, also for an existing file in a folder that is no sweep of ours, unless `overwrite`.
    """
    for name, text in (("ranking.csv", _csv(ranking)), ("ranking.md", _markdown(ranking))):
        refuse_existing(folder / name, "rank:", overwrite=overwrite, draws=name)
        write_text(folder / name, text)


def _csv(ranking: Ranking) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    records = [record(ranking, row) for row in ranking.shown]
    titles = list(dict.fromkeys(title for record in records for title in record))
    writer.writerow(map(_cell, titles))
    writer.writerows([_cell(record.get(title)) for title in titles] for record in records)
    return stream.getvalue()


def record(ranking: Ranking, row: Row) -> dict[str, Any]:
    """A row of the ranking by the titles of ranking.csv."""
    low, high = row.interval or (None, None)
    measures = dict(zip((metric for metric, _ in ranking.objectives), row.objectives, strict=True))
    return {
        "rank": row.rank,
        **row.values,
        **measures,
        f"{ranking.metric} low": None if row.own_interval is None else row.own_interval[0],
        f"{ranking.metric} high": None if row.own_interval is None else row.own_interval[1],
        f"{ranking.metric} sd": row.deviation,
        "difference": row.difference,
        "difference_low": low,
        "difference_high": high,
        "tie": row.tie,
        **({"pareto": row.front} if len(ranking.objectives) > 1 else {}),
        **{f"validation/{name}": value for name, value in row.metrics.items()},
        **{f"test/{name}": value for name, value in row.test.items()},
        **{f"benchmark/{task}/{name}": one.get(name) for task, one in row.benchmark.items() for name in BENCHMARKED},
        "seconds": row.seconds,
        "packed": row.packed,
        "tokens_per_s": row.tokens_per_s,
        "peak_memory_bytes": row.peak_memory_bytes,
        "predicted_memory_bytes": row.predicted_memory_bytes,
        "readings": row.readings,
        "regret": row.regret,
        "count": row.count,
        **({} if row.folds is None else {"folds": " ".join(str(fold) for fold in row.by_fold)}),
        "seeds": " ".join(map(str, row.seeds)),
        "state": row.state,
        "trials": " ".join(row.trials),
        "error": row.error,
    }


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return value
    return neutral_cell(str(value))


def _markdown(ranking: Ranking) -> str:
    columns = columns_of(ranking, PLUS_MINUS)
    columns.append(TableColumn("trials", [plain(", ".join(row.trials)) for row in ranking.shown], left=True))
    lines = [
        f"# Ranking by {_escaped(ranking.metric)} ({ranking.goal})",
        "",
        *(f"- {_escaped(line)}" for line in summary_lines(ranking)),
        "",
        _line(_escaped(column.title) for column in columns),
        _line("---" if column.left else "---:" for column in columns),
        *(_line(_escaped(column.cells[place]) for column in columns) for place in range(len(ranking.shown))),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows unchanged, for names and errors."""
    return re.sub(r"([\\`*\[\]|~#])", r"\\\1", html.escape(text, quote=False))
