"""The lines on rows whose trials ended early or are paused."""

from danube_sweep.results.rows import Ranking, Row, winner


def regret_lines(ranking: Ranking) -> list[str]:
    """Lines on rows that ended early; none without such rows."""
    early = [row for row in ranking.rows if row.pruned]
    lines = []
    if ranking.regret is not None:
        best = winner(ranking)
        others = [row for row in early if best is None or row.trials != best.trials]
        which = "the row that ended early" if len(others) == 1 else f"one of the {len(others)} rows that ended early"
        lines.append(f"regret: {ranking.regret:.0%} chance, by this sweep's own crossings, that {which} would have won")
    if thin := sum(row.readings == 1 for row in early):
        lines.append(f"{thin} row{'s' * (thin > 1)} that ended early rest{'s' * (thin == 1)} on one validation")
    return lines


def ended_early(best: Row) -> str:
    """A part of the answer's line, or nothing if all of its trials finished."""
    if not best.early or best.early == best.count:
        return "; it ended early" if best.early else ""
    return f"; {best.early} of its {best.count} trials ended early"
