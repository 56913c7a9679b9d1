"""A rule for a run or an ensemble, and its worth on rows that did not choose it.

Axes: N examples, C classes, A answers of an example, G groups.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from danube_sweep.config.schema import Target
from danube_sweep.data.records import OUTSIDE
from danube_sweep.errors import ConfigError
from danube_sweep.results.answers import Codes
from danube_sweep.results.bootstrap import FOLDS, LEVEL, cross_folds, fold_of, resampled
from danube_sweep.results.decisions.counts import Metric, Truth, metric_from, metric_of, parts_of, score
from danube_sweep.results.decisions.fit_rules import fit
from danube_sweep.results.decisions.rules import Biases, Cuts, Decisions, Outside, Rule, Thresholds
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import GROUP, ID, LABEL, PREDICTION, Floats, floats
from danube_sweep.training.metrics import decided

MOST_GRADES = 50

OFFERED = {
    Target.one: ("macro_f1", ("macro_f",)),
    Target.ordered: ("qwk", ("qwk", "macro_f")),
    Target.many: ("macro_f1", ("macro_f", "micro_f")),
    Target.number: ("qwk", ("qwk",)),
    Target.words: ("token_f5", ("token_f",)),
}
"""By target: the metric without a wish, and those that can be asked for; an F-measure has a beta after its name."""


@dataclass(frozen=True)
class Judged:
    """Answers to rows whose labels are known."""

    target: Target
    classes: list[str]
    """Of numbers, the grades that the rows have, as text."""
    answers_NA: Floats
    truth: Truth
    groups_N: Codes
    grouped: bool
    """Whether the groups are known; otherwise each row is its own."""


@dataclass(frozen=True)
class Worth:
    """A metric with the plain decisions and with the rule's, each row decided by a rule of other groups of rows."""

    before: float
    after: float
    half: float
    """Half of the difference's 95 % interval over groups of rows."""

    def said(self, metric: Metric) -> str:
        low, high = self.after - self.before - self.half, self.after - self.before + self.half
        return (
            f"{metric.name} {self.before:.4f} -> {self.after:.4f} on unseen rows ({self.after - self.before:+.4f}, "
            f"95 % {low:+.4f} .. {high:+.4f})"
        )


def wanted_metric(target: Target, name: str | None) -> Metric:
    """The metric that is asked for, or the usual one of the target. Raises ConfigError for one that does not fit it."""
    if target not in OFFERED:
        raise ConfigError("head=lm decides nothing; decide needs a run with another head")
    usual, families = OFFERED[target]
    metric = metric_from(name or usual)
    if metric is None or metric.family not in families:
        offered = ", ".join("qwk" if one == "qwk" else f"{one}BETA ({one}1, {one}2, …)" for one in families)
        raise ConfigError(f"--metric {name}: the answers of this head are decided for {offered}")
    return metric


def judged_from(table: "pa.Table", target: Target, where: str) -> Judged:
    """The rows of a file of predictions, ready to judge rules on.

    Raises ConfigError for labels that no rule can decide, and the errors of DAMAGED.
    """
    names = table.column_names
    groups_N, grouped = _groups(table, target)
    if target is Target.number:
        if PREDICTION not in names:
            raise KeyError(PREDICTION)
        return _graded(floats(table, LABEL), floats(table, PREDICTION), (groups_N, grouped), where)
    classes = predictions.class_names(names)
    if target is Target.many:
        if (found := predictions.several(table)) is None:
            raise KeyError("labels of several classes")
        return Judged(target, classes, found[1], Truth(found[0] > 0.5, len(classes)), groups_N, grouped)
    if (one := predictions.classified(table)) is None:
        raise KeyError("labels of one class")
    if target is Target.words and OUTSIDE not in classes:
        raise ConfigError(f"{where}: no class {OUTSIDE}, whose threshold a rule for words chooses")
    outside = classes.index(OUTSIDE) if target is Target.words else -1
    return Judged(target, classes, one.probabilities_NC, Truth(one.labels_N, len(classes), outside), groups_N, grouped)


def _groups(table: "pa.Table", target: Target) -> tuple[Codes, bool]:
    if GROUP in table.column_names:
        keys = table[GROUP].to_numpy()
    elif target is Target.words:  # whose ids are `<text>:<number>`
        keys = np.array([str(name).rpartition(":")[0] for name in table[ID].to_pylist()])
    else:
        return np.arange(len(table)), False
    return np.unique(keys, return_inverse=True)[1].astype(np.int64), True


def _graded(labels_N: Floats, numbers_N: Floats, groups: tuple[Codes, bool], where: str) -> Judged:
    whole = np.isfinite(labels_N).all() and np.array_equal(labels_N, np.round(labels_N))
    grades = int(labels_N.max() - labels_N.min()) + 1 if whole else 0
    if not 1 < grades <= MOST_GRADES:
        raise ConfigError(f"{where}: grades are 2 to {MOST_GRADES} whole numbers in a row, and these labels are others")
    lowest = int(labels_N.min())
    names = [str(lowest + place) for place in range(grades)]
    truth = Truth((labels_N - lowest).astype(np.int64), grades, lowest=lowest)
    return Judged(Target.number, names, numbers_N[:, None], truth, *groups)


def plain(judged: Judged) -> Decisions:
    """The decisions without a rule: the likeliest class; of ordered ones the median; above 0.5; the nearest grade."""
    answers_NA, count = judged.answers_NA, judged.truth.classes
    if judged.target is Target.many:
        return np.asarray(answers_NA > 0.5)
    if judged.target is Target.number:
        nearest_N = np.floor(answers_NA[:, 0] - judged.truth.lowest + 0.5)
        return np.clip(nearest_N, 0, count - 1).astype(np.int64)
    return np.asarray(decided(judged.target, torch.from_numpy(answers_NA.copy())).numpy())


def rule_of(judged: Judged, metric: Metric, rows: Codes | None = None) -> Rule:
    """The best rule on some of the rows, or on all of them."""
    rows = np.arange(len(judged.groups_N)) if rows is None else rows
    truth = replace(judged.truth, wanted=judged.truth.wanted[rows])
    return fit(metric, judged.answers_NA[rows], truth, _kind(judged.target, metric))


def _kind(target: Target, metric: Metric) -> type[Rule]:
    if metric.family == "qwk":
        return Cuts
    return {Target.many: Thresholds, Target.words: Outside}.get(target, Biases)


def worth_of(judged: Judged, metric: Metric) -> Worth:
    """The rule's score on unseen rows, by cross-fitting. Raises ConfigError for fewer groups of rows than folds."""
    groups = int(judged.groups_N.max(initial=-1)) + 1
    if groups < FOLDS:
        raise ConfigError(f"a rule is judged on {FOLDS} parts of the rows, and there are {groups} groups of rows")
    before, after = plain(judged), plain(judged)
    fold_N = cross_folds(judged.groups_N)
    for fold in range(FOLDS):
        out_N = fold_N == fold
        after[out_N] = rule_of(judged, metric, np.flatnonzero(~out_N)).decide(judged.answers_NA[out_N])
    return Worth(score(metric, before, judged.truth), score(metric, after, judged.truth),
                 half_of(judged, metric, before, after))  # fmt: skip


def half_of(judged: Judged, metric: Metric, before: Decisions, after: Decisions) -> float:
    """Half of the 95 % interval of the difference between two decisions, over groups of rows."""
    parts = [parts_of(metric, one, judged.truth) for one in (before, after)]
    value = partial(metric_of, metric, many=judged.target is Target.many)
    away_BT = resampled(value, fold_of(judged.groups_N, np.ones(len(judged.groups_N)), parts), seed=1)
    return float(np.quantile(np.abs(away_BT[:, 1] - away_BT[:, 0]), LEVEL))
