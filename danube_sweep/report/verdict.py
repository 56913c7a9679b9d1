"""The configuration to use, how certain that is, cheaper ties, and open questions."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from danube_sweep import paths
from danube_sweep.config.schema.states import State
from danube_sweep.errors import CheckpointError
from danube_sweep.report.factor_effects import Factor
from danube_sweep.report.page_data import Answer, Cheaper, Shown
from danube_sweep.results.early_rows import regret_lines
from danube_sweep.results.ranking_table import (
    cheaper_rival_lines,
    nothing_learned,
    nothing_learned_lines,
    number,
    shown,
)
from danube_sweep.results.rows import Ranking, ties, winner
from danube_sweep.results.trial_results import UNDER_WAY, StoredTrial
from danube_sweep.results.two_sweeps import KEY
from danube_sweep.results.winning_run import best_trial
from danube_sweep.storage.files import read_json

PRIOR: Final = "class prior"
_FEW_SEEDS: Final = 3
_WORTH_SAVING: Final = 0.05
_NOT_A_TRIAL: Final = ("sweep", "pruner", "hydra", KEY)


def verdict_of(ranking: Ranking, rows: Sequence[Shown], factors: Sequence[Factor]) -> Answer:
    """The answer of a sweep; without a finished trial there is no best."""
    open_trials = sum(trial.state in UNDER_WAY for trial in ranking.trials)
    row = winner(ranking)
    best = next((one for one in rows if one.row is row), None)
    good = [one for one in rows if one.kind == "good"]
    learned = not nothing_learned(ranking)
    return Answer(
        best=best,
        learned=learned,
        command=command(best) if best is not None and learned else None,
        as_good=len(ties(ranking)),
        cheaper=_cheaper(best, good) if best is not None and learned else [],
        nothing_learned=[*nothing_learned_lines(ranking), *cheaper_rival_lines(ranking)],
        unknown=_unknown(ranking, best, good, factors, open_trials),
        then=_then(ranking, best) if best is not None and learned else [],
    )


def _then(ranking: Ranking, best: Shown) -> list[str]:
    """Predict with the best trial or with several, refit it, export it; language modelling predicts nothing."""
    name = best_trial(ranking, best.row)[0]
    folder = next(one.folder.path for one in best.used if one.name == name)
    sweep, trial = (shlex.quote(str(paths.from_here(one))) for one in (folder.parent, folder))
    export = f"danube-sweep export {trial} my-model"
    if best.used[0].config.get("head.kind") == "lm":
        return [export]
    finished = sum(one.state == State.finished.value for one in ranking.trials)
    together = [f"danube-sweep ensemble {sweep} -o ensemble"] if finished > 1 else []
    again = f"danube-sweep refit {sweep} --seeds 3 -o final"
    return [f"danube-sweep predict {sweep} test.csv -o submission.csv", *together, again, export]


def command(best: Shown) -> str:
    """The command that trains the row's first trial again."""
    trial = best.used[0]
    words = _asked(trial) or [f"{key}={shown(value)}" for key, value in best.row.values.items() if value is not None]
    chosen = [word for word in words if word.lstrip("+~").partition(".")[0].partition("/")[0] not in _NOT_A_TRIAL]
    return " ".join(["danube-sweep", *map(shlex.quote, chosen)])


def _asked(trial: StoredTrial) -> list[str]:
    if not trial.folder.trial.is_file():
        return []
    try:
        asked: Any = read_json(trial.folder.trial).get("overrides")
    except CheckpointError:
        return []
    return [str(word) for word in asked] if isinstance(asked, list) else []


def _cheaper(best: Shown, good: Sequence[Shown]) -> list[Cheaper]:
    found = []
    for one in good:
        savings = {
            "memory": _saved(best.memory_bytes, one.memory_bytes),
            "time": _saved(best.seconds, one.seconds),
        }
        said = [f"{share:.0%} less {name}" for name, share in savings.items() if share >= _WORTH_SAVING]
        said += [f"{-share:.0%} more {name}" for name, share in savings.items() if said and share <= -_WORTH_SAVING]
        if said:
            found.append((max(savings.values()), Cheaper(one, ", ".join(said))))
    return [cheaper for _, cheaper in sorted(found, key=lambda pair: -pair[0])]


def _saved(dear: float | None, cheap: float | None) -> float:
    return (dear - cheap) / dear if dear and cheap is not None else 0.0


def _unknown(
    ranking: Ranking, best: Shown | None, good: Sequence[Shown], factors: Sequence[Factor], open_trials: int
) -> list[str]:
    said = [_unfinished(open_trials), _lost(ranking)]
    regret = " ".join(f"{line[0].upper()}{line[1:]}." for line in regret_lines(ranking))
    if best is None or nothing_learned(ranking):
        said.append(regret)
    else:
        said += [
            _single(ranking, best, good),
            _above(ranking, best),
            " ".join(filter(None, [_early(best), regret])),
            _seeds(ranking, best),
            *_edges(best, factors),
            _optimism(ranking, best),
            _shared(best),
        ]
    return [sentence for sentence in said if sentence]


def _unfinished(open_trials: int) -> str:
    if not open_trials:
        return ""
    return f"{_trials(open_trials)} not ended yet, so the ranking can still change."


def _lost(ranking: Ranking) -> str:
    lost = sum(row.mean is None and not _is_open(row.state) for row in ranking.rows)
    return f"{_count(lost, 'configuration')} ended without a result, so nothing is known about them." if lost else ""


def _is_open(state: str) -> bool:
    return any(word in state for word in UNDER_WAY)


def _single(ranking: Ranking, best: Shown, good: Sequence[Shown]) -> str:
    others = [row for row in ranking.rows if row.difference is not None]
    if not others:
        return "There is nothing to compare: only one configuration has a result."
    if all(row.interval is None for row in others):
        return "Differences have no interval, so a small one may be chance. The notes of the ranking give the reason."
    if not good:
        return ""
    return f"Which of the first {len(good) + 1} is really best: their differences may be chance (95 %)."


def _above(ranking: Ranking, best: Shown) -> str:
    above = [row for row in ranking.rows if row.rank is not None and row.rank < (best.row.rank or 0)]
    return (
        f"{_count(len(above), 'configuration')} ranked above it with fewer trials; the others were lost."
        if above
        else ""
    )


def _early(best: Shown) -> str:
    row = best.row
    which = "The best one" if row.early == row.count else f"{row.early} of the {row.count} trials of the best one"
    return f"{which} ended early: it may be better when it is trained to its end." if row.early else ""


def _seeds(ranking: Ranking, best: Shown) -> str:
    count = best.row.seed_count
    if count >= _FEW_SEEDS:
        return ""
    more = "Sweep seed=0,1,2 over the best few."
    if ranking.noise is None:
        known = "no configuration was trained to its end with a second seed"
        compared = any(row.interval is not None for row in ranking.rows)
        instead = "; the rows' own spread stands in" if compared else ""
        return f"How much training varies: {known}{instead}. {more}"
    if count < 2:
        return f"How much the seed matters: the best has one. {more}"
    return f"How much the seed matters: the best has {count}, too few for a narrow interval. {more}"


def _edges(best: Shown, factors: Sequence[Factor]) -> list[str]:
    said = []
    for factor in factors:
        value = best.row.values.get(factor.name)
        if not factor.numeric or value is None:
            continue
        places = [float(level.label) for level in factor.levels]
        ends = {f"{min(places):.6g}": "smallest", f"{max(places):.6g}": "largest"}
        end = ends.get(f"{float(value):.6g}")
        if end is not None and not (end == "smallest" and float(value) == 0):  # a rate, a share or a weight ends there
            further = "lower" if end == "smallest" else "higher"
            said.append(f"What lies beyond: {factor.name}={shown(value)} won at the {end} value tried; go {further}.")
    return said


def _optimism(ranking: Ranking, best: Shown) -> str:
    ranked = sum(row.mean is not None for row in ranking.rows)
    name = ranking.metric.rpartition("/")[2]
    if ranked < 2 or not ranking.metric.startswith("validation/"):
        return ""
    if name in best.row.test:
        return f"On unseen rows it is {number(best.row.test[name])} (test part, scored once for the winner)."
    return f"How good it is on new rows: the best of {ranked} looks better than it is, and no test part was scored."


def _shared(best: Shown) -> str:
    return (
        "Its own memory and seconds: it trained in a pack, so memory is predicted and seconds are its share."
        if best.shared
        else ""
    )


def _trials(count: int) -> str:
    return f"{count} trial has" if count == 1 else f"{count} trials have"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def references_of(trials: Sequence[StoredTrial], metric: str) -> dict[str, float]:
    """The results of answering without reading in the metric, by name, from the first trial that states them."""
    name = metric.rpartition("/")[2]
    labels: Mapping[str, str] = {"uniform": "uniform", "prior": PRIOR, "bayes": "Bayes-optimal"}
    for trial in trials:
        stated = trial.result.get("references")
        if isinstance(stated, dict):
            found = {label: trial.number(f"references/{key}_{name}") for key, label in labels.items()}
            return {label: value for label, value in found.items() if value is not None}
    return {}
