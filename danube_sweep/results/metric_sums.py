"""The metrics that are made of sums over examples, so that resampled examples have a metric at once.

Axes: N examples, C classes, S sums; leading axes (...) are resamples. The mean of a weighted sum is over `total`, the
weights of a resample together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from danube_sweep.results.answers import Answers, Codes
from danube_sweep.results.entity_sums import entity_sums, word_sums
from danube_sweep.storage.predictions import Floats


@dataclass(frozen=True)
class MetricSums:
    """`sums` gives each example's part, [N, S]; `value` the metric of sums [..., S] and total [...]."""

    sums: Callable[[Answers], Floats]
    value: Callable[[Floats, Floats], Floats]
    losses_alone: bool = False
    """Whether the losses are all that it needs."""


def metric_sums(address: str) -> MetricSums | None:
    """How the metric at an address like validation/log_loss is made of sums; None for one that is not."""
    part, _, name = address.rpartition("/")
    return _METRICS.get(name) if part == "validation" else None


def value_of(metric: MetricSums, answers: Answers) -> float:
    """The metric over all examples."""
    return float(metric.value(metric.sums(answers).sum(axis=0), np.asarray(answers.weights_N.sum())))


def _mean(of: Callable[[Answers], Floats], then: Callable[[Floats], Floats] = lambda mean: mean) -> MetricSums:
    def value(sums: Floats, total: Floats) -> Floats:
        return then(sums[..., 0] / total)

    return MetricSums(lambda found: (of(found) * found.weights_N)[:, None], value)


def _loss(then: Callable[[Floats], Floats] = lambda mean: mean) -> MetricSums:
    made = _mean(lambda found: found.losses_N, then)
    return MetricSums(made.sums, made.value, losses_alone=True)


# ---------------------------------------------------------------------------------------------- one class an example


def _probabilities(found: Answers) -> Floats:
    if found.probabilities_NC is None:
        raise KeyError("no probabilities")
    return found.probabilities_NC


def _labels(found: Answers) -> Codes:
    if found.labels_N is None:
        raise KeyError("no label of one class")
    return found.labels_N


def _right(found: Answers) -> Floats:
    return np.asarray(_probabilities(found).argmax(axis=1) == _labels(found), dtype=np.float64)


def _median_class(found: Answers) -> Codes:
    probabilities_NC = _probabilities(found)
    below_N = (probabilities_NC.astype(np.float32).cumsum(axis=1) < 0.5).sum(axis=1)
    return np.asarray(np.minimum(below_N, probabilities_NC.shape[1] - 1), dtype=np.int64)


def _kappa_sums(found: Answers) -> Floats:
    said_N, wanted_N = _median_class(found).astype(np.float64), _labels(found).astype(np.float64)
    return np.stack([np.square(said_N - wanted_N), said_N, wanted_N, said_N**2 + wanted_N**2], axis=1)


def _kappa(sums: Floats, total: Floats) -> Floats:
    # 1 - observed squared distance over that of independent answers: mean (a - b)^2 = mean a^2 + b^2 - 2 mean a mean b.
    expected = sums[..., 3] - 2 * sums[..., 1] * sums[..., 2] / total
    return _share(expected - sums[..., 0], expected)


# ---------------------------------------------------------------------------------------------------- F1 of classes


def _class_counts(found: Answers) -> Floats:
    """[N, 3 C]: found, wanted and both, class by class."""
    if found.labels_NC is not None:
        said_NC, wanted_NC = _probabilities(found) > 0.5, found.labels_NC > 0.5
    else:
        classes_C = np.arange(len(found.classes))
        said_NC = _probabilities(found).argmax(axis=1)[:, None] == classes_C
        wanted_NC = _labels(found)[:, None] == classes_C
    return np.concatenate([said_NC, wanted_NC, said_NC & wanted_NC], axis=1).astype(np.float64)


def _macro_counts(found: Answers) -> Floats:
    # The last column tells two cases apart: with one class an example, a class that nobody has or predicts does not
    # count.
    several = np.full((len(found.losses_N), 1), float(found.labels_NC is not None))
    return np.concatenate([_class_counts(found), several], axis=1)


def _macro_f1(sums: Floats, total: Floats) -> Floats:
    said, wanted, both = np.split(sums[..., :-1], 3, axis=-1)
    there = (said + wanted > 0) | (sums[..., -1:] > 0)
    return _share(np.where(there, _share(2 * both, said + wanted), 0).sum(axis=-1), there.sum(axis=-1))


def _micro_counts(found: Answers) -> Floats:
    return np.stack([part.sum(axis=1) for part in np.split(_class_counts(found), 3, axis=1)], axis=1)


def _exact(found: Answers) -> Floats:
    if found.labels_NC is None:
        raise KeyError("no labels of several classes")
    return np.asarray(((_probabilities(found) > 0.5) == (found.labels_NC > 0.5)).all(axis=1), dtype=np.float64)


# -------------------------------------------------------------------------------------------------- words, numbers


def _entities(found: Answers) -> Floats:
    return entity_sums(_probabilities(found).argmax(axis=1), _labels(found), found.starts_N, found.classes)


def _words(found: Answers) -> Floats:
    return word_sums(_probabilities(found).argmax(axis=1), _labels(found), found.classes)


def _f_score(beta: float) -> Callable[[Floats, Floats], Floats]:
    # In counts: (1 + b^2) both / (found + b^2 wanted).
    return lambda sums, _: _share((1 + beta**2) * sums[..., 2], sums[..., 0] + beta**2 * sums[..., 1])


def _errors(found: Answers) -> Floats:
    if found.wanted_N is None or found.numbers_N is None:
        raise KeyError("no numbers")
    return found.numbers_N - found.wanted_N


def _moments(found: Answers) -> Floats:
    if found.wanted_N is None or found.numbers_N is None:
        raise KeyError("no numbers")
    # Around the mean label, which changes no correlation and keeps the digits.
    middle = float(found.wanted_N.mean())
    wanted_N, said_N = found.wanted_N - middle, found.numbers_N - middle
    return np.stack([said_N, wanted_N, said_N**2, wanted_N**2, said_N * wanted_N], axis=1)


def _pearson(sums: Floats, total: Floats) -> Floats:
    said, wanted, said_2, wanted_2, both = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum(said_2 - said**2 / total, 0) * np.maximum(wanted_2 - wanted**2 / total, 0))
    return _share(both - said * wanted / total, spread)


def _share(part: Floats, whole: Floats) -> Floats:
    """part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=np.asarray(whole) > 0)


def _perplexity(mean: Floats) -> Floats:
    return np.asarray(np.exp(np.minimum(mean, 700.0)))


_METRICS = {
    "log_loss": _loss(),
    "perplexity": _loss(_perplexity),
    "accuracy": _mean(_right),
    "macro_f1": MetricSums(_macro_counts, _macro_f1),
    "micro_f1": MetricSums(_micro_counts, _f_score(1)),
    "exact_match": _mean(_exact),
    "qwk": MetricSums(_kappa_sums, _kappa),
    "mse": _mean(lambda found: np.square(_errors(found))),
    "rmse": _mean(lambda found: np.square(_errors(found)), lambda mean: np.asarray(np.sqrt(mean))),
    "mae": _mean(lambda found: np.abs(_errors(found))),
    "pearson": MetricSums(_moments, _pearson),
    "entity_f1": MetricSums(_entities, _f_score(1)),
    "entity_precision": MetricSums(_entities, lambda sums, _: _share(sums[..., 2], sums[..., 0])),
    "entity_recall": MetricSums(_entities, lambda sums, _: _share(sums[..., 2], sums[..., 1])),
    "token_f1": MetricSums(_words, _f_score(1)),
    "token_f5": MetricSums(_words, _f_score(5)),
}
"""Not here: auroc and spearman, which every example's place among all decides, and ece, which resampling raises."""

RESAMPLED: Sequence[str] = tuple(_METRICS)
"""The names of the metrics that have an interval."""
