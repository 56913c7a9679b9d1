"""The best rule for a metric on some rows.

A rule has one number or several. One number at a time is moved to its exact optimum among all places where a decision
changes, with the others fixed. This ends when a round over all of them gains nothing.

Axes: N examples in the order of the number at which they change, C classes, K grades. S steps: at step s, the first s
of the N examples have changed.
"""

from collections.abc import Callable

import numpy as np

from danube_sweep.results.answers import Codes
from danube_sweep.results.decisions.counts import Metric, Truth, f_measure, score
from danube_sweep.results.decisions.rules import Biases, Cuts, Outside, Rule, Thresholds, log_of, score_of
from danube_sweep.storage.predictions import Floats

_ROUNDS = 10
_GAIN = 1e-9
"""Less is the arithmetic's."""
_BEYOND = 1.0
"""How far past the first or last example a number goes that changes none or all of them."""


def fit(metric: Metric, answers_NA: Floats, truth: Truth, kind: type[Rule]) -> Rule:
    """The best rule of a kind on these rows; where several are as good, the one nearest to where the search began."""
    if kind is Biases:
        return _fit_biases(metric, log_of(answers_NA), truth)
    if kind is Thresholds:
        return _fit_thresholds(metric, answers_NA, truth)
    if kind is Outside:
        return _fit_outside(metric, answers_NA, truth)
    return _fit_cuts(answers_NA, truth)


def _climbed(numbers: list[float], place: Callable[[list[float], int], tuple[float, float]], start: float) -> float:
    """Moves each of the numbers in turn, in place, until a round gains nothing; returns the score that is reached."""
    reached = start
    for _ in range(_ROUNDS):
        before = reached
        for index in range(len(numbers)):
            value, found = place(numbers, index)
            if found > reached + _GAIN:
                numbers[index], reached = value, found
        if reached <= before + _GAIN:
            break
    return reached


def _borders(changes_N: Floats) -> Floats:
    """For each number of changed examples, 0 to all of them, a number between the last changed and the next one."""
    below = changes_N[:1] - _BEYOND
    return np.concatenate([below, (changes_N[:-1] + changes_N[1:]) / 2, changes_N[-1:] + _BEYOND])


def _best(scores_S: Floats, changes_N: Floats, start: float) -> tuple[float, float]:
    """The border of the best step, of several the one nearest to `start`. Examples that change alike do so together."""
    apart_S = np.concatenate([[True], np.diff(changes_N) > 0, [True]])
    borders_S = _borders(changes_N)
    top = scores_S[apart_S].max()
    places = np.flatnonzero(apart_S & (scores_S >= top - _GAIN))
    chosen = places[np.abs(borders_S[places] - start).argmin()]
    return float(borders_S[chosen]), float(scores_S[chosen])


# ------------------------------------------------------------------------------------------- one class of several


def _fit_biases(metric: Metric, log_NC: Floats, truth: Truth) -> Biases:
    numbers = [0.0] * log_NC.shape[1]

    def move(numbers: list[float], moved: int) -> tuple[float, float]:
        others_NC = log_NC + np.array(numbers)
        others_NC[:, moved] = -np.inf
        other_N = others_NC.argmax(axis=1)
        # With a larger bias than this an example becomes one of the moved class.
        changes_N = others_NC.max(axis=1) - log_NC[:, moved]
        order_N = np.argsort(changes_N, kind="stable")
        scores_S = _as_moved(metric, other_N[order_N], truth.wanted[order_N], moved, truth.classes)
        return _best(scores_S, changes_N[order_N], numbers[moved])

    _climbed(numbers, move, score(metric, Biases(numbers).decide(np.exp(log_NC)), truth))
    return Biases([one - numbers[0] for one in numbers])


def _as_moved(metric: Metric, other_N: Codes, wanted_N: Codes, moved: int, classes: int) -> Floats:
    """The macro F-measure when the first s examples go from their other class to the moved one, for each s."""
    right_N = other_N == wanted_N
    true_C, said_C = (np.bincount(one, minlength=classes).astype(np.float64) for one in (wanted_N, other_N))
    right_C = np.bincount(other_N, right_N, minlength=classes).astype(np.float64)

    def measured(said: Floats, right: Floats, true: Floats) -> tuple[Floats, Floats]:
        return f_measure(right, said, true, metric.beta), (said + true > 0).astype(np.float64)

    # Each example that goes changes the F-measure of its own other class, by how many of that class went before.
    said_N = said_C[other_N] - _earlier(other_N, np.ones(len(other_N)))
    kept_N = right_C[other_N] - _earlier(other_N, right_N.astype(np.float64))
    before, after = measured(said_N, kept_N, true_C[other_N]), measured(said_N - 1, kept_N - right_N, true_C[other_N])
    steps_S = np.arange(len(other_N) + 1.0)
    own_S = measured(
        steps_S, np.concatenate([[0.0], np.cumsum(wanted_N == moved)]), np.full(len(steps_S), true_C[moved])
    )
    rest_C = np.arange(classes) != moved
    first = [float(one[rest_C].sum()) for one in measured(said_C, right_C, true_C)]
    total_S, there_S = (
        start + np.concatenate([[0.0], np.cumsum(new - old)]) + own
        for start, new, old, own in zip(first, after, before, own_S, strict=True)
    )
    return np.asarray(total_S / np.maximum(there_S, 1.0))


def _earlier(classes_N: Codes, values_N: Floats) -> Floats:
    """For each example the sum of the values of the earlier ones of its class."""
    order_N = np.argsort(classes_N, kind="stable")
    sums_N = np.cumsum(values_N[order_N]) - values_N[order_N]
    _, starts = np.unique(classes_N[order_N], return_index=True)
    sizes = np.diff(np.append(starts, len(classes_N)))
    found_N = np.empty(len(classes_N))
    found_N[order_N] = sums_N - np.repeat(sums_N[starts], sizes)
    return found_N


# ------------------------------------------------------------------------------------------ any number of classes


def _fit_thresholds(metric: Metric, answers_NC: Floats, truth: Truth) -> Thresholds:
    numbers = [0.5] * answers_NC.shape[1]

    def move(numbers: list[float], moved: int) -> tuple[float, float]:
        order_N = np.argsort(-answers_NC[:, moved], kind="stable")
        wanted_N = truth.wanted[order_N, moved]
        right_S = np.concatenate([[0.0], np.cumsum(wanted_N)])
        said_S, true = np.arange(len(order_N) + 1.0), float(wanted_N.sum())
        if metric.family == "micro_f":
            rest = np.delete(np.arange(len(numbers)), moved)
            found_NC = Thresholds(numbers).decide(answers_NC)
            right_S = right_S + float((found_NC & truth.wanted)[:, rest].sum())
            said_S = said_S + float(found_NC[:, rest].sum())
            true += float(truth.wanted[:, rest].sum())
            scores_S = f_measure(right_S, said_S, np.float64(true), metric.beta)
        else:  # the other classes' share of the mean does not change
            others = score(metric, Thresholds(numbers).decide(answers_NC), truth)
            found_N = answers_NC[:, moved] >= numbers[moved]
            own = f_measure((found_N & truth.wanted[:, moved]).sum(), found_N.sum(), np.float64(true), metric.beta)
            scores_S = others + (f_measure(right_S, said_S, np.float64(true), metric.beta) - own) / len(numbers)
        border, reached = _best(scores_S, -answers_NC[order_N, moved], -numbers[moved])
        return -border, reached

    _climbed(numbers, move, score(metric, Thresholds(numbers).decide(answers_NC), truth))
    return Thresholds(numbers)


# ----------------------------------------------------------------------------------------------------------- words


def _fit_outside(metric: Metric, answers_NC: Floats, truth: Truth) -> Outside:
    outside_N = answers_NC[:, truth.outside]
    others_N = Outside([2.0], truth.outside).decide(answers_NC)
    order_N = np.argsort(outside_N, kind="stable")  # with a larger threshold a word is no longer O
    right_S = np.concatenate([[0.0], np.cumsum((others_N == truth.wanted)[order_N])])
    true = np.float64((truth.wanted != truth.outside).sum())
    scores_S = f_measure(right_S, np.arange(len(order_N) + 1.0), true, metric.beta)
    border, _ = _best(scores_S, outside_N[order_N], 0.5)
    return Outside([border], truth.outside)


# ---------------------------------------------------------------------------------------------------------- grades


def _fit_cuts(answers_NA: Floats, truth: Truth) -> Cuts:
    scores_N = score_of(answers_NA)
    order_N = np.argsort(scores_N, kind="stable")
    scores_N, wanted_N = scores_N[order_N], truth.wanted[order_N]
    shares = np.cumsum(np.bincount(wanted_N, minlength=truth.classes))[:-1] / len(wanted_N)
    starts = [truth.lowest + np.arange(truth.classes - 1) + 0.5, np.quantile(scores_N, shares)]
    found = [_climbed_cuts(scores_N, wanted_N, truth.classes, list(map(float, start))) for start in starts]
    return Cuts(max(found, key=lambda one: one[0])[1])


def _climbed_cuts(scores_N: Floats, wanted_N: Codes, grades: int, cuts: list[float]) -> tuple[float, list[float]]:
    truth = Truth(wanted_N, grades)

    def move(cuts: list[float], moved: int) -> tuple[float, float]:
        # Between its neighbours, a cut decides whether an example has the grade above it or the one below.
        low = cuts[moved - 1] if moved else -np.inf
        high = cuts[moved + 1] if moved + 1 < len(cuts) else np.inf
        free = np.flatnonzero((scores_N >= low) & (scores_N < high))
        if not len(free):
            return cuts[moved], -np.inf
        found_N = np.searchsorted(np.array(cuts), scores_N, side="right")
        found_N[free] = moved + 1
        kappas_S = _kappas(found_N, wanted_N, free, grades)
        border, reached = _best(kappas_S, scores_N[free], cuts[moved])
        return float(np.clip(border, low, high)), reached

    reached = _climbed(cuts, move, score(Metric("qwk"), Cuts(cuts).decide(scores_N[:, None]), truth))
    return reached, cuts


def _kappas(found_N: Codes, wanted_N: Codes, free: Codes, grades: int) -> Floats:
    """Kappa when the first s of the free examples, which have one grade, get the grade below, for each s."""
    above = int(found_N[free[0]])
    squared = np.square(found_N - wanted_N).astype(np.float64)
    gains = np.square(above - 1 - wanted_N[free]) - squared[free]
    observed_S = squared.sum() + np.concatenate([[0.0], np.cumsum(gains)])
    places_K = np.arange(grades)
    true_K = np.bincount(wanted_N, minlength=grades).astype(np.float64)
    # The cost of each grade by chance: the squared distance to a true grade drawn from all of them.
    costs_K = (np.square(places_K[:, None] - places_K[None, :]) * true_K[None, :]).sum(axis=1) / len(wanted_N)
    chance = float(costs_K[found_N].sum())
    chance_S = chance + np.arange(len(free) + 1) * (costs_K[above - 1] - costs_K[above])
    return np.where(chance_S > 0, 1.0 - observed_S / np.where(chance_S > 0, chance_S, 1.0), 0.0)
