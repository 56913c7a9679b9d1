"""Entities of labelled words, counted word by word, so that documents can be resampled.

Axes: N words, in the order of their documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danube_sweep.data.records import OUTSIDE
from danube_sweep.storage.predictions import Floats

Places = NDArray[np.int64]


@dataclass(frozen=True)
class _Spans:
    """Runs of words: `first_N` where one begins, `kinds_N` its type (-1: no entity), `ends_N` where its run ends."""

    first_N: NDArray[np.bool_]
    kinds_N: Places
    ends_N: Places


def entity_sums(found_N: Places, wanted_N: Places, starts_N: NDArray[np.bool_], classes: Sequence[str]) -> Floats:
    """[N, 3]: whether an entity that was found, that is true, or that is both begins at each word.

    As in conlleval, an entity begins at B-, at a change of type, and at an I- without an entity before it. No entity
    crosses the first word of a text (`starts_N`).
    """
    found, wanted = (_spans(places_N, starts_N, classes) for places_N in (found_N, wanted_N))
    begins_N, wanted_begins_N = (one.first_N & (one.kinds_N >= 0) for one in (found, wanted))
    same_N = (found.kinds_N == wanted.kinds_N) & (found.ends_N == wanted.ends_N)
    right_N = begins_N & wanted_begins_N & same_N
    return np.stack([begins_N, wanted_begins_N, right_N], axis=1).astype(np.float64)


def word_sums(found_N: Places, wanted_N: Places, classes: Sequence[str]) -> Floats:
    """[N, 3]: whether each word is found in an entity, belongs to one, and has the same class of one in both."""
    outside = classes.index(OUTSIDE) if OUTSIDE in classes else -1
    found, wanted = found_N != outside, wanted_N != outside
    return np.stack([found, wanted, found & (found_N == wanted_N)], axis=1).astype(np.float64)


def _spans(places_N: Places, starts_N: NDArray[np.bool_], classes: Sequence[str]) -> _Spans:
    marks, kinds = zip(*(_parts(name) for name in classes), strict=True)
    known = {name: number for number, name in enumerate(sorted(set(kinds) - {""}))} | {"": -1}
    kinds_N = np.array([known[kind] for kind in kinds], dtype=np.int64)[places_N]
    first_N = starts_N | np.array([mark == "B" for mark in marks])[places_N]
    first_N[1:] |= kinds_N[1:] != kinds_N[:-1]
    first_N[:1] = True
    numbers_N = np.cumsum(first_N) - 1
    ends = np.append(np.flatnonzero(first_N)[1:], len(places_N))
    return _Spans(first_N, kinds_N, ends[numbers_N])


def _parts(name: str) -> tuple[str, str]:
    # A class without B- or I- is its own type.
    mark, _, kind = name.partition("-")
    return (mark, kind or mark) if name != OUTSIDE else ("", "")
