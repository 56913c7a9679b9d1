"""The time left of a sweep, against schedules worked out by hand."""

import pytest

from danube_sweep.sweeping.execute.pace import Pace


def test_nothing_is_known_before_a_trial_has_ended() -> None:
    assert Pace(1).left_s(4, 10.0) is None


def test_trials_one_after_another_take_the_mean_of_the_ended() -> None:
    pace = Pace(1)
    pace.add("a", ended_s=110.0, seconds=10.0, places=1, paused=False)
    pace.add("b", ended_s=130.0, seconds=20.0, places=1, paused=False)
    assert pace.left_s(4, 130.0) == pytest.approx(4 * 15.0)
    assert pace.left_s(4, 136.0) == pytest.approx(4 * 15.0 - 6.0)  # the third has had six seconds


def test_two_slots_take_half_of_the_time() -> None:
    pace = Pace(2)
    for name, slot_end in (("a", 20.0), ("b", 20.0)):
        pace.add(name, ended_s=slot_end, seconds=20.0, places=1, paused=False)
    assert pace.left_s(4, 20.0) == pytest.approx(40.0)


def test_the_others_of_a_pack_are_as_far_as_the_one_that_has_ended() -> None:
    # Two packs of three, 60 s each: at the end of the first trial, only the second pack is left.
    pace = Pace(1)
    pace.add("a", ended_s=60.0, seconds=60.0, places=3, paused=False)
    assert pace.left_s(5, 60.0) == pytest.approx(60.0)
    for name in "bc":
        pace.add(name, ended_s=60.0, seconds=60.0, places=3, paused=False)
    assert pace.left_s(3, 60.0) == pytest.approx(60.0)


def test_the_last_pack_promises_nothing_while_its_trials_end() -> None:
    pace = Pace(1)
    pace.add("a", ended_s=60.0, seconds=60.0, places=3, paused=False)
    assert pace.left_s(2, 60.0) is None


def test_a_paused_trial_counts_as_ended_until_it_goes_on() -> None:
    pace = Pace(1)
    pace.add("a", ended_s=10.0, seconds=10.0, places=1, paused=True)
    assert pace.left_s(3, 10.0) == pytest.approx(20.0)  # two others
    pace.add("a", ended_s=30.0, seconds=20.0, places=1, paused=False)
    assert pace.left_s(2, 30.0) == pytest.approx(60.0)
