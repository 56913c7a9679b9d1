"""The data and the head that answers."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from danube_sweep.config.schema.fields import setting

HIGHER_IS_BETTER = frozenset(
    {
        "accuracy",
        "macro_f1",
        "micro_f1",
        "auroc",
        "qwk",
        "pearson",
        "spearman",
        "exact_match",
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "token_f1",
        "token_f5",
    }
)
"""The metrics that are to be maximized."""


class Target(Enum):
    """What a head learns of a row."""

    one = "one"
    """One of the classes, or a probability for each."""
    ordered = "ordered"
    """One of classes that have an order."""
    many = "many"
    """Any of the classes."""
    number = "number"
    words = "words"
    """One of the classes for every word."""
    nothing = "nothing"
    """No label: the text itself."""


_OF_ONE_CLASS = ("log_loss", "accuracy", "macro_f1", "ece", "auroc")

METRICS: dict[Target, tuple[str, ...]] = {
    Target.one: _OF_ONE_CLASS,
    Target.ordered: (*_OF_ONE_CLASS, "qwk"),
    Target.many: ("log_loss", "auroc", "micro_f1", "macro_f1", "exact_match"),
    Target.number: ("mse", "rmse", "mae", "pearson", "spearman"),
    Target.words: (
        "log_loss", "accuracy", "entity_f1", "entity_precision", "entity_recall", "token_f1", "token_f5"
    ),
    Target.nothing: ("log_loss", "perplexity"),
}  # fmt: skip
"""What an evaluation reports; the first is the loss, and chooses the best step."""


class Pooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"


class PairPooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"
    pair = "pair"


class AnswerPooling(Enum):
    last = "last"
    mean = "mean"
    attention = "attention"
    last_mean = "last_mean"
    answer = "answer"


@dataclass
class Head:
    """`target`: what it learns of a row. `passes`: sequences that it reads of a row."""

    target: ClassVar[Target] = Target.one
    passes: ClassVar[int] = 1

    lr: float | None = setting("the head's own learning rate; null takes optimizer.lr", None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What its evaluation reports."""
        return METRICS[self.target]


@dataclass
class LayeredHead(Head):
    """A head with layers of its own."""

    hidden: int | None = setting("width of a hidden layer (GELU) before the last one; null for none", None)
    dropout: float = setting("dropout before the head's layers, 0 to 1", 0.0)


@dataclass
class ClassifierHead(Head):
    label_smoothing: float = setting("share of the label spread evenly over the classes, 0 to 1", 0.0)


@dataclass
class SequenceHead(ClassifierHead, LayeredHead):
    pooling: Pooling = setting(
        "last, mean, attention, or last_mean (both): how token states become one vector", Pooling.last
    )
    bias: bool | None = setting(
        "a bias in the last layer; null: none over the last token alone, as transformers' own classifiers have it",
        None,
    )

    @property
    def biased(self) -> bool:
        """Whether the last layer has a bias."""
        alone = self.pooling is Pooling.last and self.hidden is None
        return not alone if self.bias is None else self.bias


@dataclass
class OrdinalHead(ClassifierHead, LayeredHead):
    """One of classes with an order (numbers, or data.classes), by cumulative logits (McCullagh 1980)."""

    target: ClassVar[Target] = Target.ordered

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)


class RegressionLoss(Enum):
    mse = "mse"
    mae = "mae"
    huber = "huber"


@dataclass
class RegressionHead(LayeredHead):
    """A number; training standardises it."""

    target: ClassVar[Target] = Target.number

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)
    loss: RegressionLoss = setting("what is trained, of the standardised number: mse, mae, huber", RegressionLoss.mse)


@dataclass
class MultilabelHead(LayeredHead):
    """Any of the classes, each by itself."""

    target: ClassVar[Target] = Target.many

    pooling: Pooling = setting("last, mean, attention or last_mean", Pooling.mean)


@dataclass
class TokenHead(ClassifierHead, LayeredHead):
    """A class for every word."""

    target: ClassVar[Target] = Target.words


@dataclass
class PreferenceHead(ClassifierHead, LayeredHead):
    pooling: PairPooling = setting(
        "pair reads each answer's tokens and length; or last, mean, attention, last_mean", PairPooling.pair
    )


class Ties(Enum):
    davidson = "davidson"
    rao_kupper = "rao_kupper"


@dataclass
class BradleyTerryHead(ClassifierHead, LayeredHead):
    """A score for each answer, read in a pass of its own; the difference says who wins."""

    passes: ClassVar[int] = 2

    pooling: AnswerPooling = setting(
        "answer reads the answer's tokens and length; or last, mean, attention, last_mean", AnswerPooling.answer
    )
    ties: Ties = setting("davidson (1970) or rao_kupper (1967): how likely a tie is, one learned number", Ties.davidson)


@dataclass
class CausalHead(ClassifierHead):
    words: list[str] | None = setting("a word per class; null takes the class names, for preferences A, B, tie", None)


@dataclass
class LMHead(Head):
    """Next-token prediction."""

    target: ClassVar[Target] = Target.nothing


class Side(Enum):
    left = "left"
    right = "right"
    middle = "middle"


class Batching(Enum):
    bucketed = "bucketed"
    shuffled = "shuffled"
    packed = "packed"


@dataclass
class Data:
    max_length: int = setting("longest sequence in tokens, special tokens included", 1024)
    max_rows: int | None = setting("use only the first rows of each part, to try things out", None)
    truncation: Side = setting("which end of an overlong text is cut: left, right or middle", Side.left)
    batching: Batching = setting(
        "bucketed puts rows of similar length together; shuffled does not; packed takes shuffled's rows and lays them "
        "end to end, without padding (no encoders)",
        Batching.bucketed,
    )
    order_seed: int = setting("seed of the order of the training rows", 0)
    cache_prefix: bool = setting(
        "keep on disk what comes out of the blocks below the first adapted one, and never run them again; wants "
        "lora=none, lora.last_k or lora.layers",
        False,
    )
    validation_fraction: float = setting("share of the groups held out if there is no validation file or fold", 0.2)
    test_fraction: float = setting("share of the groups kept for the test part if there is no test file", 0.0)
    split_seed: int = setting("seed of the split into parts and of the folds", 0)
    folds: int | None = setting("deal the groups into so many folds, one of which validates; null for one split", None)
    fold: int | None = setting("the fold that validates, from 0; 0,1,2,… sweeps over them", None)
    stratified: bool = setting("deal so that the classes' shares are alike in all folds", False)


@dataclass
class FileData(Data):
    path: str = setting("the training file: csv, jsonl or parquet, .gz allowed", path="files")
    validation_path: str | None = setting("a validation file; null splits the training file", None, path="files")
    test_path: str | None = setting("a test file with labels; null for none or test_fraction", None, path="files")


@dataclass
class Comparison(Data):
    """Two answers to a prompt."""

    swap_augment: bool = setting("train on every row in both orders of the answers", False)


@dataclass
class ArenaData(Comparison, FileData):
    """Two answers to a prompt and which one people preferred, in the LMSYS competition's format."""

    soft_labels: bool = setting("the three winner columns are probabilities instead of 0 and 1", False)


@dataclass
class PairsData(Comparison, FileData):
    """Two answers to a prompt in columns of plain text, and which one won, with or without ties."""

    prompt_column: str | None = setting("name of the prompt column; null for answers without one", "prompt")
    a_column: str = setting("name of the column of answer A", "response_a")
    b_column: str = setting("name of the column of answer B", "response_b")
    label_column: str = setting("name of the column that says who won", "winner")
    a_label: str = setting("what it says when A won", "model_a")
    b_label: str = setting("what it says when B won", "model_b")
    tie_labels: list[str] = setting("what it says of a tie, like '[tie,\"tie (bothbad)\"]'; [] for no ties", [])
    id_column: str | None = setting("name of the id column; null numbers the rows", None)


@dataclass
class TableColumns(Data):
    """Which columns of a row are its text and its label."""

    text_column: str = setting("name of the text column", "text")
    label_column: str = setting(
        "name of the label column: a class, for head=regression a number, for head=multilabel a list", "label"
    )
    id_column: str | None = setting("name of the id column; null numbers the rows", None)
    group_column: str | None = setting("rows with equal values stay in one part; null groups equal texts", None)
    classes: list[str] | None = setting("the classes in order; null takes those of the training rows, sorted", None)
    soft_label_columns: list[str] | None = setting("one probability column per class, instead of label_column", None)


@dataclass
class TokensData(FileData):
    """Words with a label each (BIO for entities): lists in jsonl or parquet."""

    tokens_column: str = setting("name of the column with the list of words", "tokens")
    labels_column: str = setting("name of the column with the list of labels", "labels")
    whitespace_column: str | None = setting(
        "a list that says whether a space follows each word, like trailing_whitespace; null: always", None
    )
    id_column: str | None = setting("name of the id column; null numbers the rows", None)
    overlap: int = setting("tokens that the pieces of an overlong text repeat, for context", 64)
    classes: list[str] | None = setting("the labels in order; null takes those of the training rows, sorted", None)


@dataclass
class TextData(Data):
    """Running text for language modelling, cut into pieces of max_length tokens."""

    path: list[str] = setting("files of text: jsonl, csv or parquet, .gz allowed", path="files")
    validation_path: list[str] | None = setting("validation files; null splits the training texts", None, path="files")
    text_column: str = setting("name of the text column", "text")


@dataclass
class TableData(TableColumns, FileData):
    """One text and one label a row."""


@dataclass
class HubData(TableColumns):
    """One text and one label a row, from a data set of the Hugging Face hub or a folder of its files."""

    path: str = setting("the data set's hub name, OWNER/NAME, or a folder", path="folder")
    subset: str | None = setting("one of its subsets (configurations); null takes its default", None)
    revision: str | None = setting("branch, tag or commit; null takes the main branch. The commit is kept", None)
    split: str = setting("the split to train on", "train")
    validation_split: str | None = setting("the split to choose trials on; null cuts it off the training split", None)
    test_split: str | None = setting("the test split; null for none or test_fraction", None)


@dataclass
class GeneratedData(Comparison):
    """Arena records made on the spot, whose winner follows from the answers' content."""

    rows: int = setting("records to make", 2000)
    seed: int = setting("seed of the records", 0)
    noise: float = setting("share of the labels replaced by another one, 0 to 1", 0.1)


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
