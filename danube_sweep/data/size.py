"""How many rows a trial would train on and how long they are, without reading or tokenising them all."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from danube_sweep.config.schema import Comparison, Data, ExtraRows, FileData
from danube_sweep.data.kind import DataKind, DataSize
from danube_sweep.data.parts import read_unlabelled
from danube_sweep.data.read_files import count_rows
from danube_sweep.data.records import Record

SAMPLED_ROWS = 300
CHARACTERS_PER_TOKEN = 4.0
"""English prose under the tokenizers of the models here."""
TEMPLATE_TOKENS, TEMPLATE_BYTES = 12, 256
"""Tokens that a row's markup adds: the mean and the maximum."""


def data_size(config: Data) -> DataSize | None:
    """The size of the training part; None if its file is not there. Raises DataError for a damaged one."""
    assert isinstance(config, DataKind)
    if (known := config.size()) is not None:
        return known
    sampled = config.sample(SAMPLED_ROWS) or _sampled(config)
    if sampled is None:
        return None
    sample, total = sampled
    rows = min(round(total * training_share(config)), config.max_rows or total)
    if isinstance(config, ExtraRows):
        rows += _added(config.extra, config.max_rows)
    if config.train_on_validation and isinstance(config, FileData) and config.validation_path is not None:
        rows += _added([config.validation_path], config.max_rows)
    doubled = isinstance(config, Comparison) and config.swap_augment
    return DataSize(rows * (2 if doubled else 1), _mean_tokens(sample, config.max_length))


def _added(paths: Sequence[str], most: int | None) -> int:
    # Rows of other files that train too; 0 where one is not there.
    if not all(Path(path).expanduser().is_file() for path in paths):
        return 0
    rows = sum(_count(path, Path(path).expanduser().stat().st_mtime_ns) for path in paths)
    return min(rows, most or rows)


def training_share(config: Data) -> float:
    """The share of the training source's rows that trains."""
    own_validation, own_test = config.own_parts
    test = 0.0 if own_test else config.test_fraction
    if config.train_on_validation:
        return 1 - test
    if config.folds is not None:
        return (1 - test) * (1 - 1 / config.folds)
    return 1 - test - (0.0 if own_validation else config.validation_fraction)


def longest_row(config: Data) -> int:
    """A bound on the tokens of any row: no text has more tokens than bytes. At most data.max_length, also for no file.

    Reads the files whole, once each. Raises DataError for a damaged one.
    """
    assert isinstance(config, DataKind)
    files = _files(config)
    if (everything := config.sample(2**62)) is not None:
        longest = max(map(_bytes, everything[0]))
    elif files and all(Path(path).expanduser().is_file() for path in files):
        longest = max(_longest(path, Path(path).expanduser().stat().st_mtime_ns, Hashed(config)) for path in files)
    else:
        return config.max_length
    return min(config.max_length, longest + TEMPLATE_BYTES)


def _files(config: Data) -> list[str]:
    if not isinstance(config, FileData):
        return []
    extra = config.extra if isinstance(config, ExtraRows) else []
    return [path for path in (config.path, config.validation_path, config.test_path, *extra) if path is not None]


class Hashed:
    """A reader's settings as the key of a cache, by their content."""

    def __init__(self, config: Data) -> None:
        self.config, self._key = config, repr(config)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashed) and self._key == other._key


@lru_cache(maxsize=64)
def _longest(path: str, _changed_ns: int, reader: Hashed) -> int:
    return max(map(_bytes, read_unlabelled(reader.config, path, "data.path")))


def _bytes(record: Record) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in record.texts)


def _sampled(config: Data) -> tuple[list[Record], int] | None:
    if not isinstance(config, FileData) or not Path(config.path).expanduser().is_file():
        return None
    sample = list(islice(read_unlabelled(config, config.path, "data.path"), SAMPLED_ROWS))
    return sample, _count(config.path, Path(config.path).expanduser().stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _count(path: str, _changed_ns: int) -> int:
    return count_rows(Path(path).expanduser())


def _mean_tokens(sample: list[Record], most: int) -> float:
    lengths = [TEMPLATE_TOKENS + sum(map(len, record.texts)) / CHARACTERS_PER_TOKEN for record in sample]
    return sum(min(length, most) for length in lengths) / max(len(lengths), 1)
