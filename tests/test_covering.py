"""A covering part of a product leaves out cases and nothing that is to meet."""

import itertools

import pytest
from covering import covering, every_pair, every_value, one_in

COLOURS, SIZES, FLAGS, LISTS = ["red", "green", "blue"], [1, 2, 3, 4], [False, True], [[], ["a"], ["a", "b"]]


def test_every_pair_of_values_meets_in_a_third_of_the_cases() -> None:
    chosen = covering(COLOURS, SIZES, FLAGS, LISTS)
    for (first, ones), (second, others) in itertools.combinations(enumerate((COLOURS, SIZES, FLAGS, LISTS)), 2):
        for one, other in itertools.product(ones, others):
            assert any(case[first] == one and case[second] == other for case in chosen)
    assert len(set(map(str, chosen))) == len(chosen) <= 3 * 4 * 2 * 3 / 3


def test_what_cannot_be_is_left_out_and_all_else_meets() -> None:
    def possible(colour: str, size: int, flag: bool) -> bool:
        return not flag or (colour != "red" and size < 3)

    chosen = covering(COLOURS, SIZES, FLAGS, possible=possible)
    assert all(possible(*case) for case in chosen)
    whole = [case for case in itertools.product(COLOURS, SIZES, FLAGS) if possible(*case)]
    assert {pair for case in whole for pair in every_pair(case)} == {
        pair for case in chosen for pair in every_pair(case)
    }


def test_each_value_comes_once_where_pairs_are_not_asked_for() -> None:
    chosen = covering(COLOURS, SIZES, meets=every_value)
    assert len(chosen) == 4
    assert {case[0] for case in chosen} == set(COLOURS) and {case[1] for case in chosen} == set(SIZES)


def test_all_of_it_is_there_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANUBE_SWEEP_TEST_FULL", "1")
    assert covering(COLOURS, SIZES) == list(itertools.product(COLOURS, SIZES))
    assert one_in(2, COLOURS) == list(COLOURS)


def test_one_in_several_cases_begins_with_the_first() -> None:
    assert one_in(2, range(5)) == [0, 2, 4] and one_in(3, [7]) == [7]
