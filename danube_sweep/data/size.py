"""How many rows a trial would train on and how long they are, without reading or tokenising them all."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from danube_sweep.config.schema import Comparison, Data, FileData, GeneratedData, TextData, own_parts
from danube_sweep.data import read_unlabelled
from danube_sweep.data.kinds.generated import generate
from danube_sweep.data.kinds.text import load_text
from danube_sweep.data.read_files import count_rows
from danube_sweep.data.records import Record

SAMPLED_ROWS = 300
CHARACTERS_PER_TOKEN = 4.0
"""English prose under the tokenizers of the models here."""
TEMPLATE_TOKENS, TEMPLATE_BYTES = 12, 256
"""What a row's frame adds: as a mean, and at the most."""


@dataclass(frozen=True)
class DataSize:
    """Training rows of an epoch, and an estimate of their mean length in tokens after truncation."""

    rows: int
    tokens_per_row: float


def data_size(config: Data) -> DataSize | None:
    """The size of the training part; None if its file is not there. Raises DataError for a damaged one."""
    match config:
        case GeneratedData():
            sample, total = generate(min(config.rows, SAMPLED_ROWS), config.seed, config.noise), config.rows
        case FileData() if Path(config.path).expanduser().is_file():
            sample, total = _sampled(config, config.path)
        case TextData() if all(Path(path).expanduser().is_file() for path in config.path):
            return _text_size(config)
        case _:
            return None
    rows = min(round(total * _training_share(config)), config.max_rows or total)
    doubled = isinstance(config, Comparison) and config.swap_augment
    return DataSize(rows * (2 if doubled else 1), _mean_tokens(sample, config.max_length))


def _training_share(config: Data) -> float:
    own_validation, own_test = own_parts(config)
    test = 0.0 if own_test else config.test_fraction
    if config.folds is not None:
        return (1 - test) * (1 - 1 / config.folds)
    return 1 - test - (0.0 if own_validation else config.validation_fraction)


def longest_row(config: Data) -> int:
    """A bound on the tokens of any row: no text has more tokens than bytes. At most data.max_length, also for no file.

    Reads the files whole, once each. Raises DataError for a damaged one.
    """
    match config:
        case GeneratedData():
            longest = max(map(_bytes, generate(config.rows, config.seed, config.noise)))
        case FileData() if all(Path(path).expanduser().is_file() for path in _files(config)):
            longest = max(_longest(path, Path(path).stat().st_mtime_ns, Hashed(config)) for path in _files(config))
        case _:
            return config.max_length
    return min(config.max_length, longest + TEMPLATE_BYTES)


def _files(config: FileData) -> list[str]:
    return [path for path in (config.path, config.validation_path) if path is not None]


class Hashed:
    """A reader's settings as the key of a cache: by what they say."""

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


def _sampled(config: Data, path: str) -> tuple[list[Record], int]:
    return list(islice(read_unlabelled(config, path, "data.path"), SAMPLED_ROWS)), _count(
        path, Path(path).stat().st_mtime_ns
    )


@lru_cache(maxsize=64)
def _count(path: str, _changed_ns: int) -> int:
    return count_rows(Path(path).expanduser())


def _mean_tokens(sample: list[Record], most: int) -> float:
    lengths = [TEMPLATE_TOKENS + sum(map(len, record.texts)) / CHARACTERS_PER_TOKEN for record in sample]
    return sum(min(length, most) for length in lengths) / max(len(lengths), 1)


@lru_cache(maxsize=16)
def _characters(paths: tuple[str, ...], column: str, _changed_ns: tuple[int, ...]) -> int:
    return sum(len(record.texts[0]) for record in load_text(paths, column))


def _text_size(config: TextData) -> DataSize:
    changed = tuple(Path(path).expanduser().stat().st_mtime_ns for path in config.path)
    characters = _characters(tuple(config.path), config.text_column, changed)
    pieces = max(1, round(characters / CHARACTERS_PER_TOKEN * _training_share(config) / config.max_length))
    return DataSize(min(pieces, config.max_rows or pieces), config.max_length)
