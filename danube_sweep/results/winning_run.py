"""The one run of a sweep that its ranking stands for."""

from pathlib import Path

from danube_sweep.errors import CheckpointError
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_table import named, plain
from danube_sweep.results.rows import FINISHED, Ranking, Row, TrialOutcome, refuse_unread, winner
from danube_sweep.results.trial_results import DAMAGED, UNDER_WAY


def winning_run(sweep: Path) -> tuple[Path, str]:
    """The run of the best row that has the best metric, and a line that states which it is.

    The line also says which results are damaged and do not count. Raises CheckpointError for a folder that is no
    sweep, for a sweep without a finished trial, and for one with a result that cannot be read.
    """
    ranking = rank_sweep(sweep)
    refuse_unread(ranking)
    best = winner(ranking)
    if (best is None or not best.cells) and any(trial.state == FINISHED for trial in ranking.trials):
        raise CheckpointError(
            f"{sweep}: no finished trial has {ranking.metric}, by which one could be chosen; give one"
        )
    if best is None or not best.cells:
        raise CheckpointError(f"{sweep} has no finished trial; finish it with: danube-sweep resume {sweep}")
    trial, value = best_trial(ranking, best)
    said = f"{sweep}: the best row is {named(best)}; its trial {trial} ({ranking.metric} {value:.4f})"
    ties = sum(row.tie for row in ranking.rows)
    others = [f"best of {len(best.used)} seeds and folds"] if len(best.used) > 1 else []
    others += [f"tied with {ties} other row{'s' * (ties > 1)}"] if ties else []
    lost = [one.trial for one in ranking.trials if _is_damaged(sweep, one)]
    others += [f"without {', '.join(lost)}, whose result or config is damaged"] if lost else []
    return sweep / trial, plain(", ".join([said, *others]))


def _is_damaged(sweep: Path, trial: TrialOutcome) -> bool:
    # A trial that is under way has no result.json.
    return trial.state == DAMAGED or (trial.state in UNDER_WAY and (sweep / trial.trial / "result.json").is_file())


def best_trial(ranking: Ranking, row: Row) -> tuple[str, float]:
    """The trial of a row with metrics that every command takes for the row, the one with the best; and that metric."""
    sign = -1 if ranking.goal == "maximize" else 1
    return min(zip(row.used, row.cells.values(), strict=True), key=lambda one: sign * one[1])
