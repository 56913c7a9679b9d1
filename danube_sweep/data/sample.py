"""Some rows of a part, drawn by a seed, with the classes in their shares."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from danube_sweep.config.schema import Data, Labelled
from danube_sweep.data.records import Record

_TOLERANCE = 1e-3


def sampled(records: Sequence[Record], config: Data) -> list[Record]:
    """At most `max_rows` of the rows, in their order; a function of rows and `split_seed`.

    Rows with one class each (the likeliest, where labels are soft) are drawn class by class, within a row of its
    share. Others are drawn evenly.
    """
    most = config.max_rows
    if most is None or len(records) <= most:
        return list(records)
    strata: dict[int, list[int]] = defaultdict(list)
    for row, kind in enumerate(_classes(records, config)):
        strata[kind].append(row)
    random = np.random.Generator(np.random.PCG64(config.split_seed))
    chosen: list[int] = []
    for kind, count in _quotas({kind: len(strata[kind]) for kind in sorted(strata)}, most).items():
        chosen += [strata[kind][place] for place in random.permutation(len(strata[kind]))[:count]]
    return [records[row] for row in sorted(chosen)]


def _classes(records: Sequence[Record], config: Data) -> list[int]:
    labels = [record.label or () for record in records]
    one_each = all(len(label) > 1 and abs(sum(label) - 1) <= _TOLERANCE for label in labels)
    if config.labelled is not Labelled.rows or not one_each:
        return [0] * len(labels)
    return [max(range(len(label)), key=label.__getitem__) for label in labels]


def _quotas(counts: dict[int, int], most: int) -> dict[int, int]:
    """Each class's share of `most` rows, rounded so that they add up: the largest remainders are rounded up."""
    total = sum(counts.values())
    quotas = {kind: count * most // total for kind, count in counts.items()}
    rest = sorted(counts, key=lambda kind: (-(counts[kind] * most % total), kind))
    for kind in rest[: most - sum(quotas.values())]:
        quotas[kind] += 1
    return quotas
