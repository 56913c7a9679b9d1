"""The interface of a kind of data: it reads its rows, and may know their number."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from danube_sweep.config.schema import Target
from danube_sweep.data.records import LabelledRows, Parts, Record


@dataclass(frozen=True)
class DataSize:
    """Training rows of an epoch, and an estimate of their mean length in tokens after truncation."""

    rows: int
    tokens_per_row: float


class DataKind(ABC):
    """To be extended beside the fields: `class TableData(TableColumns, FileData, DataKind)`."""

    @abstractmethod
    def load(self, target: Target) -> Parts:
        """The training, validation and test rows. Raises DataError for any mistake in them."""

    @abstractmethod
    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        """The rows of a file to predict, one at a time; labels are neither needed nor read. Raises DataError."""

    def sample(self, most: int) -> tuple[list[Record], int] | None:
        """Some of its rows and the number of all, where it is known without reading a file."""
        return None

    def size(self) -> DataSize | None:
        """Its size, where the rows that train are not the rows of its files."""
        return None


class ExtraKind(DataKind):
    """A kind that takes `data.extra`, to be extended beside `ExtraRows`."""

    @abstractmethod
    def load_extra(self, path: str, target: Target, classes: list[str]) -> LabelledRows:
        """The rows of a file of extra rows, with hard or soft labels of these classes. Raises DataError."""
