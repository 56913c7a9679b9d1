"""What a pruner says of a trial, from the validations of all."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from danube_sweep.composer import Composer
from danube_sweep.config.schema import Asha, Hyperband, Median, NoPruner, Patient
from danube_sweep.config.schema.states import Verdict
from danube_sweep.results.courses import Course, Reading
from danube_sweep.sweeping.propose.pruners import MedianRule, Patience, Rungs, WandbBands, build_pruner
from danube_sweep.sweeping.wandb_file.read_sweep_file import read_sweep_file

STEPS = 100


def course(*values: float, of: int = 4) -> Course:
    """A trial with these values after validations at equal steps, `of` to its end."""
    readings = (Reading(number, number / of, value) for number, value in enumerate(values, start=1))
    return Course(tuple(readings), STEPS)


def rungs(pruner: Asha | Hyperband) -> Rungs:
    rule = build_pruner(pruner)
    assert isinstance(rule, Rungs)
    return rule


# -------------------------------------------------------------------------------------------------------- rungs


@pytest.mark.parametrize(
    ("of", "least", "judged"),
    [
        (4, 1, [1, 2, 3]),
        (4, 2, [2, 3]),
        (5, 2, [2, 3, 4]),  # at .4, .6 and .8: nothing after one validation of five
        (20, 2, [5, 10, 15]),
        (1, 1, []),
    ],
)
def test_a_trial_is_judged_at_quarters_of_its_steps_but_not_before_its_second_validation(
    of: int, least: int, judged: list[int]
) -> None:
    rule = rungs(Asha(min_validations=least))
    stands = [count for count in range(1, of + 1) if rule.stands(1, course(*[0.5] * count, of=of))]
    assert stands == judged


@pytest.mark.parametrize(
    ("warmup", "judged"), [(0.05, [5, 10, 15]), (0.2, [10, 15]), (0.6, [15]), (0.65, [15]), (0.7, [])]
)
def test_nothing_is_judged_before_the_warm_up_and_a_tenth_of_the_steps(warmup: float, judged: list[int]) -> None:
    trials = [replace(course(*[0.5] * count, of=20), warmup=warmup) for count in range(1, 21)]
    rule = rungs(Asha())
    assert [count for count, one in enumerate(trials, start=1) if rule.stands(1, one)] == judged
    assert rule.next_share(1, replace(course(of=20), warmup=warmup)) == (judged[0] / 20 if judged else 1.0)
    median = MedianRule(0.25, 0, 1)
    first = next(count for count, one in enumerate(trials, start=1) if median.stands(1, one))
    assert first / 20 == pytest.approx(max(0.25, warmup + 0.1))


def passing(rule: Rungs, courses: Sequence[Course]) -> list[int]:
    known = dict(enumerate(courses, start=1))
    return rule.passing(known, known)


def test_a_trial_that_paused_by_another_rule_goes_on_to_its_next_rung() -> None:
    known = {1: course(0.1, 0.1, 0.1), 2: course(0.5, 0.5, 0.5), 3: course(0.9)}
    assert rungs(Asha(min_validations=1, reduction=2)).stands(2, known[2])
    later = rungs(Asha(min_validations=4, reduction=2))
    assert not later.stands(2, known[2]) and later.passing([2, 3], known) == [2, 3]


def test_the_best_share_goes_on_and_nobody_before_there_are_enough() -> None:
    rule = rungs(Asha(min_validations=1, reduction=3))
    values = [0.5, 0.3, 0.4, 0.9, 0.2, 0.8]
    assert passing(rule, [course(one) for one in values[:2]]) == []
    assert passing(rule, [course(one) for one in values[:3]]) == [2]
    assert passing(rule, [course(one) for one in values]) == [2, 5]


def test_trials_are_compared_at_the_same_share_of_their_steps_by_their_best_value() -> None:
    rule = rungs(Asha(min_validations=1, reduction=2))
    early = course(0.6, of=4)
    further = course(0.7, 0.1, of=4)  # better now, but not at the rung
    many = course(0.9, 0.5, 0.8, of=8)  # its rung is at .25, after its second validation
    assert rule.passing([1], {1: early, 2: further}) and not rule.passing([1], {1: early, 3: many})
    assert not rule.passing([2], {1: early, 2: further})  # alone at its rung


def test_hyperband_judges_first_at_another_rung_in_each_bracket_and_within_brackets() -> None:
    rule = rungs(Hyperband(min_validations=1, reduction=2))
    assert rule.brackets == 3
    first = {
        number: next(count for count in range(1, 4) if rule.stands(number, course(*[0.5] * count)))
        for number in range(3, 9)
    }
    assert [first[number] for number in (3, 4, 5)] == [1, 2, 3] == [first[number] for number in (6, 7, 8)]
    known = {3: course(0.5), 6: course(0.6), 9: course(0.7), 4: course(0.1, 0.1)}
    assert rule.passing([3], known) and not rule.passing([6], known)


def test_the_next_share_is_that_of_the_next_rung_or_the_end() -> None:
    rule = rungs(Asha())
    ends = [rule.next_share(1, course(*[0.5] * count, of=5)) for count in (0, 1, 2, 4, 5)]
    assert ends == [0.25, 0.25, 0.5, 1.0, 1.0]


# ------------------------------------------------------------------------------------------- median, patience


def test_the_median_rule_waits_for_others_and_for_a_share_of_the_steps() -> None:
    rule = build_pruner(Median(startup_trials=2))
    assert isinstance(rule, MedianRule)
    known = {1: course(0.5, 0.4), 2: course(0.9, 0.8, 0.7), 3: course(0.95, 0.85)}
    assert [rule.stands(1, course(*[0.5] * count)) for count in (1, 2, 3, 4)] == [False, True, True, False]
    assert rule.passing([1], known) and not rule.passing([3], known)
    assert rule.passing([3], {2: known[2], 3: known[3]})
    assert not rule.passing([3], {**known, 2: course(0.8, 0.8, 0.1)})  # by what 2 had at the same share


@pytest.mark.parametrize(
    ("values", "min_delta", "ended"),
    [
        ([0.9, 0.8, 0.7, 0.6], 0.0, None),
        ([0.5, 0.6, 0.7, 0.8], 0.0, 3),
        ([0.5, 0.6, 0.4, 0.3], 0.0, None),
        ([0.5, 0.5, 0.5, 0.5], 0.0, 3),
        ([0.5, 0.45, 0.4, 0.35], 0.2, 3),
        ([0.5, 0.45, 0.2, 0.19], 0.2, None),
    ],
)
def test_patience_looks_at_the_trial_alone_and_finishes_it(
    values: list[float], min_delta: float, ended: int | None
) -> None:
    rule = build_pruner(Patient(patience=1, min_delta=min_delta))
    assert isinstance(rule, Patience)
    verdicts = [rule.verdict(1, {1: course(*values[:count])}) for count in range(1, 5)]
    assert next((count for count, one in enumerate(verdicts, 1) if one is Verdict.finish), None) == ended
    assert Verdict.prune not in verdicts


def test_without_a_pruner_there_is_no_rule() -> None:
    assert build_pruner(NoPruner()) is None


# ----------------------------------------------------------------------------------------------------------- W&B

KEPT: list[dict[str, Any]] = json.loads((ROOT / "tests" / "kept" / "wandb_hyperband.json").read_text())
"""Histories, settings and the runs that W&B's package `sweeps` 0.3.0 stops."""


def test_early_terminate_ends_the_trials_that_wandb_ends(tmp_path: Path) -> None:
    composer = Composer()
    for case in KEPT:
        file = tmp_path / "sweep.yaml"
        text = {"program": "danube-sweep", "method": "random", "parameters": {"seed": {"min": 0, "max": 9}}}
        text |= {"command": ["danube-sweep", "${args_no_hyphens}"], "early_terminate": case["early_terminate"]}
        file.write_text(json.dumps({**text, "metric": {"name": "validation/log_loss", "goal": case["goal"]}}))
        _, pruner = composer.sweep(read_sweep_file(file).settings)
        rule, sign = build_pruner(pruner), -1 if case["goal"] == "maximize" else 1
        assert isinstance(rule, WandbBands)
        known = {number: course(*(sign * value for value in values)) for number, values in enumerate(case["histories"])}
        ended = [number for number in known if rule.verdict(number, known) is Verdict.prune]
        assert ended == case["stopped"], case
    assert sum(len(case["stopped"]) for case in KEPT) > 100
