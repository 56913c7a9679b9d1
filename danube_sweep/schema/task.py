"""The data and the head that answers."""

from dataclasses import dataclass
from enum import Enum

from danube_sweep.schema.fields import setting


class Pooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"


class PairPooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    pair = "pair"


@dataclass
class Head:
    lr: float | None = setting("the head's own learning rate; null takes optimizer.lr", None)


@dataclass
class ClassifierHead(Head):
    label_smoothing: float = setting("share of the label spread evenly over the classes, 0 to 1", 0.0)


@dataclass
class SequenceHead(ClassifierHead):
    pooling: Pooling = setting("last, mean or attention: how token states become one vector", Pooling.last)


@dataclass
class PreferenceHead(ClassifierHead):
    pooling: PairPooling = setting(
        "pair reads each answer's tokens and length; or last, mean, attention", PairPooling.pair
    )


@dataclass
class CausalHead(ClassifierHead):
    words: list[str] | None = setting("a word per class; null takes the class names, for preferences A, B, tie", None)


@dataclass
class LMHead(Head):
    """Next-token prediction."""


class Side(Enum):
    left = "left"
    right = "right"
    middle = "middle"


class Batching(Enum):
    bucketed = "bucketed"
    shuffled = "shuffled"


@dataclass
class Data:
    max_length: int = setting("longest sequence in tokens, special tokens included", 1024)
    max_rows: int | None = setting("use only the first rows of each part, to try things out", None)
    truncation: Side = setting("which end of an overlong text is cut: left, right or middle", Side.left)
    batching: Batching = setting("bucketed puts rows of similar length together; shuffled does not", Batching.bucketed)
    order_seed: int = setting("seed of the order of the training rows", 0)
    validation_fraction: float = setting("share of the groups held out if there is no validation file or fold", 0.2)
    test_fraction: float = setting("share of the groups kept for the test part if there is no test file", 0.0)
    split_seed: int = setting("seed of the split into parts and of the folds", 0)
    folds: int | None = setting("deal the groups into so many folds, one of which validates; null for one split", None)
    fold: int | None = setting("the fold that validates, from 0; 0,1,2,… sweeps over them", None)
    stratified: bool = setting("deal so that the classes' shares are alike in all folds", False)


@dataclass
class FileData(Data):
    path: str = setting("the training file: csv, jsonl or parquet, .gz allowed")
    validation_path: str | None = setting("a validation file; null splits the training file", None)
    test_path: str | None = setting("a test file with labels; null for none or test_fraction", None)


@dataclass
class ArenaData(FileData):
    """Two answers to a prompt and which one people preferred, in the LMSYS competition's format."""

    swap_augment: bool = setting("train on every row in both orders of the answers", False)
    soft_labels: bool = setting("the three winner columns are probabilities instead of 0 and 1", False)


@dataclass
class TableColumns(Data):
    """Which columns of a row are its text and its label."""

    text_column: str = setting("name of the text column", "text")
    label_column: str = setting("name of the label column", "label")
    id_column: str | None = setting("name of the id column; null numbers the rows", None)
    group_column: str | None = setting("rows with equal values stay in one part; null groups equal texts", None)
    classes: list[str] | None = setting("the classes in order; null takes those of the training rows, sorted", None)
    soft_label_columns: list[str] | None = setting("one probability column per class, instead of label_column", None)


@dataclass
class TextData(Data):
    """Running text for language modelling, cut into pieces of max_length tokens."""

    path: list[str] = setting("files of text: jsonl, csv or parquet, .gz allowed")
    validation_path: list[str] | None = setting("validation files; null splits the training texts", None)
    text_column: str = setting("name of the text column", "text")


@dataclass
class TableData(TableColumns, FileData):
    """One text and one label a row."""


@dataclass
class HubData(TableColumns):
    """One text and one label a row, from a data set of the Hugging Face hub or a folder of its files."""

    path: str = setting("the data set's hub name, OWNER/NAME, or a folder")
    subset: str | None = setting("one of its subsets (configurations); null takes its default", None)
    revision: str | None = setting("branch, tag or commit; null takes the main branch. The commit is kept", None)
    split: str = setting("the split to train on", "train")
    validation_split: str | None = setting("the split to choose trials on; null cuts it off the training split", None)
    test_split: str | None = setting("the test split; null for none or test_fraction", None)


@dataclass
class GeneratedData(Data):
    """Arena records made on the spot, whose winner follows from the answers' content."""

    rows: int = setting("records to make", 2000)
    seed: int = setting("seed of the records", 0)
    noise: float = setting("share of the labels replaced by another one, 0 to 1", 0.1)
    swap_augment: bool = setting("train on every row in both orders of the answers", False)


def own_parts(data: Data) -> tuple[str | None, str | None]:
    """The fields that name a source for the validation and for the test part; None where a part is cut off instead."""
    match data:
        case FileData():
            names = "validation_path", "test_path"
        case TextData():
            names = "validation_path", ""
        case HubData():
            names = "validation_split", "test_split"
        case _:
            return None, None
    validation, test = (f"data.{name}" if getattr(data, name, None) is not None else None for name in names)
    return validation, test
