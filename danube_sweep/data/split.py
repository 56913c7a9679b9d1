"""One file into three parts, with no group in two of them."""

import math
from collections.abc import Sequence

from danube_sweep.data.records import Record
from danube_sweep.errors import DataError
from danube_sweep.schema import Data, FileData, TextData


def split(records: Sequence[Record], config: Data) -> tuple[list[Record], list[Record], list[Record]]:
    """Train, validation and test rows, each in the order of the file; a function of rows and `split_seed`.

    A part with a file of its own, or with a fraction of 0, stays empty here. Raises DataError if there are too few
    groups to fill the others.
    """
    validation_share, test_share = _shares(config)
    rest, test = _hold_out(records, test_share, config)
    train, validation = _hold_out(rest, validation_share / (1 - test_share), config)
    return train, validation, test


def _shares(config: Data) -> tuple[float, float]:
    own_validation = isinstance(config, FileData | TextData) and config.validation_path is not None
    own_test = isinstance(config, FileData) and config.test_path is not None
    return 0.0 if own_validation else config.validation_fraction, 0.0 if own_test else config.test_fraction


def _hold_out(records: Sequence[Record], share: float, config: Data) -> tuple[list[Record], list[Record]]:
    if share == 0:
        return list(records), []
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(record.group, len(numbers)) for record in records]
    # Counted here as sklearn counts, but without its error for a float: 0.2 / 0.8 of 4 groups is 1, not 2.
    held_out = math.ceil(round(share * len(numbers), 6))
    if held_out >= len(numbers):
        raise DataError(
            f"data.validation_fraction={config.validation_fraction}, data.test_fraction={config.test_fraction}: "
            f"{len(numbers)} groups of rows (prompts, texts) are too few for every part; "
            "give more rows, smaller fractions or files of their own"
        )
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(n_splits=1, test_size=held_out, random_state=config.split_seed)
    kept, out = next(splitter.split(groups, groups=groups))
    return [records[row] for row in kept], [records[row] for row in out]
