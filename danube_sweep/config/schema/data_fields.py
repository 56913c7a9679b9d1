"""Fields of every kind of data. Each kind is a file of data/kinds/."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from danube_sweep.config.require import require
from danube_sweep.config.schema.fields import setting


class Labelled(Enum):
    """The part of the data that has a label."""

    rows = "rows"
    words = "words"
    nothing = "nothing"


class Side(Enum):
    left = "left"
    right = "right"
    middle = "middle"


class Batching(Enum):
    shuffled = "shuffled"
    bucketed = "bucketed"
    packed = "packed"
    """Version 0.1's name for shuffled rows in the flat layout; a composed config never holds it."""


class RowLayout(Enum):
    auto = "auto"
    padded = "padded"
    flat = "flat"


class GroupBy(Enum):
    text = "text"
    template = "template"


DEFAULT_LENGTH = 1024


@dataclass
class Data:
    """The data of a trial.

    `labelled`: the labelled part. `known_classes`: the number of classes, if known without reading.
    `part_fields`: the fields that name a source of their own for validation and test.
    """

    labelled: ClassVar[Labelled] = Labelled.rows
    known_classes: ClassVar[int | None] = None
    part_fields: ClassVar[tuple[str, str]] = ("validation_path", "test_path")

    max_length: int = setting(
        "longest sequence in tokens, with special tokens; the default is lower for a model with fewer positions",
        DEFAULT_LENGTH,
    )
    max_rows: int | None = setting(
        "draw this many rows of each part, keeping the class shares, for quick tries; drawn by split_seed", None
    )
    truncation: Side = setting("side of an overlong text that is cut: left, right or middle", Side.left)
    batching: Batching = setting(
        "rows of a step: shuffled draws them at random; bucketed groups rows of similar length, out of the random rows "
        "of four steps",
        Batching.shuffled,
    )
    layout: RowLayout = setting(
        "layout of rows in a forward pass: padded, flat (end to end without padding; not for encoders), or auto "
        "(flat on "
        "a CPU if it saves a tenth of the tokens); not part of the trial",
        RowLayout.auto,
    )
    order_seed: int | None = setting("seed of the order of the training rows; null uses seed", None)
    cache_prefix: bool = setting(
        "keep the output of the blocks below the first adapted one on disk, and skip these blocks later; needs "
        "lora=none, lora.last_k or lora.layers",
        False,
    )
    validation_fraction: float = setting(
        "share of the groups that validates, if there is no validation file or fold; 0 trains without validation", 0.2
    )
    train_on_validation: bool = setting(
        "train on the rows of the validation part too, so that none validate, as danube-sweep refit does", False
    )
    test_fraction: float = setting("share of the groups for the test part, if there is no test file", 0.0)
    split_seed: int = setting("seed of the split into parts and folds", 0)
    folds: int | None = setting("number of folds, one of which validates; null for a single split", None)
    fold: int | None = setting("the fold that validates, from 0; sweep over all with 0,1,2,…", None)
    group_by: GroupBy | None = setting(
        "rows that stay in one part: text groups prompts or texts that differ only in case and blanks; template also "
        "those that differ only in entities, numbers, quotations and names; null groups equal ones, or by group_column",
        None,
    )
    stratified: bool = setting("give all folds similar class shares", False)

    @property
    def own_parts(self) -> tuple[str | None, str | None]:
        """The fields that name a source for validation and for test; None where a part is cut off instead."""
        first, second = (None if getattr(self, name, None) is None else f"data.{name}" for name in self.part_fields)
        return first, second

    @property
    def validates(self) -> bool:
        """Whether any rows validate; without them the last step is a trial's result, and it has no metric."""
        return self.has_validation_part and not self.train_on_validation

    @property
    def has_validation_part(self) -> bool:
        """Whether a validation part is read, or cut off, whatever becomes of it."""
        return self.own_parts[0] is not None or self.folds is not None or self.validation_fraction > 0

    @property
    def label_name(self) -> str:
        """The name of a column of predicted labels."""
        return "label"

    @property
    def overlap_tokens(self) -> int:
        """Tokens that the pieces of an overlong text repeat, where words are labelled."""
        return 0

    def check(self) -> None:
        """Raises ConfigError for values that cannot be read so."""

    def settle(self) -> None:
        """Replaces values that can change under the trial, like a branch, by their current state."""

    def source_meaning(self) -> dict[str, Any]:
        """Replacements of fields in the trial's hash, where neither the value nor a file's content counts."""
        return {}


@dataclass
class Columns(Data):
    """Rows with columns, any of which may say which rows belong together."""

    group_column: str | None = setting(
        "rows with the same value in this column stay in one part; null groups equal prompts or texts", None
    )


@dataclass
class FileData(Data):
    path: str = setting("training file: csv, tsv, jsonl, json or parquet; all but parquet may be gzipped", path="files")
    validation_path: str | None = setting("validation file; null splits the training file", None, path="files")
    test_path: str | None = setting("test file with labels; null for none or test_fraction", None, path="files")


@dataclass
class ExtraRows(FileData):
    """Rows that train beside the training file's, with labels of people or of a model."""

    extra: list[str] = setting(
        "files of more training rows, with labels or with a column of probabilities per class, as danube-sweep label "
        "writes them; never in the validation or test part",
        [],
        path="files",
    )
    extra_weight: float = setting("weight of an extra row in the loss, where a training row has 1", 1.0)
    extra_temperature: float = setting(
        "the log probabilities of extra rows are divided by it: above 1 softer, below 1 sharper", 1.0
    )


@dataclass
class Comparison(Data):
    """Two answers to a prompt."""

    swap_augment: bool = setting("train on every row in both orders of the answers", False)


@dataclass
class TableColumns(Columns):
    """Which columns of a row are its text and its label."""

    text_column: str = setting("name of the text column", "text")
    label_column: str = setting(
        "name of the label column; it holds a class, a number for head=regression, or a list for head=multilabel",
        "label",
    )
    id_column: str | None = setting("name of the id column; null numbers the rows", None)
    classes: list[str] | None = setting("classes in order; null uses those of the training rows, sorted", None)
    soft_label_columns: list[str] | None = setting("one probability column per class, instead of label_column", None)

    @property
    def label_name(self) -> str:
        return self.label_column

    def check(self) -> None:
        """Raises ConfigError for fewer than two classes or columns."""
        if self.classes is not None:
            require(
                len(set(self.classes)) == len(self.classes) >= 2,
                f"data.classes needs at least two different names, got {self.classes}",
            )
        elif self.soft_label_columns is not None:
            columns = self.soft_label_columns
            require(len(columns) >= 2, f"data.soft_label_columns needs at least two columns, got {columns}")
