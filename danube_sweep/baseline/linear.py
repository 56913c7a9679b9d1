"""Linear models by scikit-learn: a class by logistic regression, a number by ridge regression.

Axes: N rows, C classes, A answers of a row: a probability for each class, or a number.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupShuffleSplit

from danube_sweep.baseline.features import Features
from danube_sweep.config.schema import Target
from danube_sweep.data.records import Parts, Record
from danube_sweep.storage.predictions import Floats

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the penalty that are tried on a fifth of the training rows."""
TRIED_ON = 0.2
MOST_ROWS = 20_000
"""Training rows that are read; of more, a sample."""
_LEAST = 1e-6

Answers = Callable[[Any], Floats]


def answers(parts: Parts, target: Target, *, words: bool) -> Floats:
    """Probabilities or numbers [N, A] for the validation rows, from a model of the training rows.

    `words`: by TF-IDF and lengths; else by lengths alone. Same rows, same answers.
    """
    train = _sampled(parts.train)
    features = Features([record.texts for record in train], words=words)
    rows, labels_NC = features([record.texts for record in train]), _labels(train)
    fitted = _fitted(rows, labels_NC, target, _best_strength(rows, labels_NC, target, train))
    return fitted(features([record.texts for record in parts.validation]))


def losses(answers_NA: Floats, labels_NC: Floats, target: Target) -> Floats:
    """The loss of each row [N], as the heads define it: nats, or squared error."""
    if target is Target.number:
        return np.asarray((answers_NA[:, 0] - labels_NC[:, 0]) ** 2)
    log_NC = np.log(answers_NA.clip(1e-15, 1.0))
    if target is not Target.many:
        return np.asarray(-(labels_NC * log_NC).sum(axis=1))
    rest_NC = np.log((1 - answers_NA).clip(1e-15, 1.0))
    return np.asarray(-(labels_NC * log_NC + (1 - labels_NC) * rest_NC).mean(axis=1))


def _sampled(train: Sequence[Record]) -> Sequence[Record]:
    if len(train) <= MOST_ROWS:
        return train
    chosen = np.sort(np.random.default_rng(0).choice(len(train), MOST_ROWS, replace=False))
    return [train[row] for row in chosen]


def _labels(records: Sequence[Record]) -> Floats:
    return np.array([record.label for record in records], dtype=np.float64)


def _best_strength(rows: Any, labels_NC: Floats, target: Target, train: Sequence[Record]) -> float:
    groups = [record.group for record in train]
    if len(set(groups)) < 2 / TRIED_ON:
        return 1.0
    splitter = GroupShuffleSplit(n_splits=1, test_size=TRIED_ON, random_state=0)
    kept, out = next(splitter.split(groups, groups=groups))
    found = {
        strength: losses(_fitted(rows[kept], labels_NC[kept], target, strength)(rows[out]), labels_NC[out], target)
        for strength in STRENGTHS
    }
    return min(found, key=lambda strength: float(found[strength].mean()))


def _fitted(rows: Any, labels_NC: Floats, target: Target, strength: float) -> Answers:
    match target:
        case Target.number:
            model = Ridge(alpha=1 / strength).fit(rows, labels_NC[:, 0])
            return lambda asked: np.asarray(model.predict(asked), dtype=np.float64)[:, None]
        case Target.many:
            each = [_classifier(rows, np.stack([1 - there, there], axis=1), strength) for there in labels_NC.T]
            return lambda asked: np.stack([one(asked)[:, 1] for one in each], axis=1)
        case _:
            return _classifier(rows, labels_NC, strength)


def _classifier(rows: Any, labels_NC: Floats, strength: float) -> Answers:
    """Logistic regression; a row with a probability for several classes counts for each of them by its share.

    A class that no training row has gets the smallest probability.
    """
    row, there = np.nonzero(labels_NC > 0)
    classes = labels_NC.shape[1]
    if len(set(there.tolist())) == 1:
        return lambda asked: _filled(np.ones((asked.shape[0], 1)), [int(there[0])], classes)
    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows[row], there, sample_weight=labels_NC[row, there])
    return lambda asked: _filled(model.predict_proba(asked), model.classes_.tolist(), classes)


def _filled(found_NF: Floats, places: Sequence[int], classes: int) -> Floats:
    answers_NC = np.full((len(found_NF), classes), _LEAST)
    answers_NC[:, places] = found_NF.clip(_LEAST, None)
    return np.asarray(answers_NC / answers_NC.sum(axis=1, keepdims=True))
