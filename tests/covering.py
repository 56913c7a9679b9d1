"""Parts of a product of values that are large enough, so that `make test` need not run all of it."""

import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

Case = tuple[Any, ...]
Met = Callable[[Case], Iterable[Hashable]]


def every_pair(case: Case) -> Iterable[Hashable]:
    """The pairs of values that meet in a case."""
    return itertools.combinations(every_value(case), 2)


def every_value(case: Case) -> list[Hashable]:
    """The values of a case, each with its place; what cannot be a key counts by its text."""
    return [(place, str(value)) for place, value in enumerate(case)]


def covering(
    *values: Sequence[Any], meets: Met = every_pair, possible: Callable[..., bool] | None = None
) -> list[Case]:
    """Cases of the product in which all meets that its cases hold; `make test-full` gets the whole product.

    Greedy, as AETG (Cohen et al. 1997): the case with the most that has not met yet is taken next.
    """
    whole = [case for case in itertools.product(*values) if possible is None or possible(*case)]
    if os.environ.get("DANUBE_SWEEP_TEST_FULL"):
        return whole
    meeting = {number: set(meets(case)) for number, case in enumerate(whole)}
    missing: set[Hashable] = set().union(*meeting.values())
    chosen = []
    while missing:
        best = max(meeting, key=lambda number: len(meeting[number] & missing))
        missing -= meeting[best]
        chosen.append(best)
    return [whole[number] for number in sorted(chosen)]


def one_in(count: int, cases: Iterable[Any]) -> list[Any]:
    """The first of every `count` cases; `make test-full` gets all of them."""
    return list(cases) if os.environ.get("DANUBE_SWEEP_TEST_FULL") else list(cases)[::count]
