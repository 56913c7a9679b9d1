"""One file into three parts, with no group in two of them."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence

from danube_sweep.config.schema import Data
from danube_sweep.data.grouping import regrouped
from danube_sweep.data.records import Record
from danube_sweep.errors import DataError

_TOLERANCE = 1e-3


def split(
    records: Sequence[Record], config: Data, classes: Sequence[str] = ()
) -> tuple[list[Record], list[Record], list[Record]]:
    """Train, validation and test rows, each in the order of the file; a function of rows and `split_seed`.

    Rows of one group, as `data.group_column` and `data.group_by` form them, are in one part.
    The test part is cut off first; with `folds` the rest is dealt into them and `fold` validates. A part with a source
    of its own, or with a fraction of 0, stays empty here. Raises DataError if there are too few groups to fill the
    others.
    """
    own_validation, own_test = config.own_parts
    test_share = 0.0 if own_test else config.test_fraction
    rest, test = _hold_out(regrouped(records, config, classes), test_share, config)
    if config.folds is not None and config.fold is not None:
        train, validation = _deal(rest, config, config.folds)[config.fold]
    else:
        validation_share = 0.0 if own_validation else config.validation_fraction
        train, validation = _hold_out(rest, validation_share / (1 - test_share), config)
    return train, validation, test


def _hold_out(records: Sequence[Record], share: float, config: Data) -> tuple[list[Record], list[Record]]:
    if share == 0:
        return list(records), []
    groups = _groups(records)
    count = len(set(groups))
    # Counted here as sklearn counts, but without its error for a float: 0.2 / 0.8 of 4 groups is 1, not 2.
    held_out = math.ceil(round(share * count, 6))
    if held_out >= count:
        raise DataError(
            f"data.validation_fraction={config.validation_fraction}, data.test_fraction={config.test_fraction}: "
            f"{count} groups of rows (prompts, texts, templates) are too few for every part; "
            "give more rows, smaller fractions or files of their own"
        )
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=config.split_seed)
    kept, out = next(splitter.split(groups, groups=groups))
    return [records[row] for row in kept], [records[row] for row in out]


def _deal(records: Sequence[Record], config: Data, folds: int) -> list[tuple[list[Record], list[Record]]]:
    """For each fold its training and its validation rows; every row validates once."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    groups = _groups(records)
    if folds > len(set(groups)):
        raise DataError(
            f"data.folds={folds}: there are only {len(set(groups))} groups of rows (equal prompts, texts or "
            "data.group_column) to divide; give fewer folds or more rows"
        )
    classes = _classes(records, folds) if config.stratified else None
    kind = StratifiedGroupKFold if config.stratified else GroupKFold
    splitter = kind(n_splits=folds, shuffle=True, random_state=config.split_seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer rows than folds: spread as far as they go
        dealt = [
            ([records[row] for row in kept], [records[row] for row in out])
            for kept, out in splitter.split(groups, classes, groups)
        ]
    empty = [str(fold) for fold, (_, out) in enumerate(dealt) if not out]
    if empty:
        raise DataError(
            f"data.stratified=true leaves fold {', '.join(empty)} of data.folds={folds} without a row: the groups are "
            "too uneven; give fewer folds or data.stratified=false"
        )
    return dealt


def _groups(records: Sequence[Record]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(record.group, len(numbers)) for record in records]


def _classes(records: Sequence[Record], folds: int) -> list[int]:
    """The likeliest class of every row."""
    labels = [record.label for record in records]
    found = [max(range(len(label)), key=label.__getitem__) for label in labels if label is not None and len(label) > 1]
    if len(found) < len(labels) or any(abs(sum(label or ()) - 1) > _TOLERANCE for label in labels):
        raise DataError(
            "data.stratified=true spreads classes, and these rows do not have one class each; give "
            "data.stratified=false"
        )
    if max(Counter(found).values()) < folds:
        raise DataError(
            f"data.stratified=true: no class has as many rows as data.folds={folds}; "
            "give fewer folds or data.stratified=false"
        )
    return found
