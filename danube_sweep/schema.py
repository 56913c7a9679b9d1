"""The whole config space on one page: one dataclass per group option, every field with type, unit and default.

`conf/<group>/<option>.yaml` extends the class registered here as `schema/<group>/<option>` and states only what
makes that option that option. Nothing here imports torch, so `--help` and composing stay fast.
"""

from dataclasses import MISSING as REQUIRED
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


def setting(help: str, default: Any = REQUIRED) -> Any:
    """A config field with the sentence that `danube-sweep --help GROUP` prints."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=MISSING if default is REQUIRED else default, metadata={"help": help})


def nested(cls: type, help: str) -> Any:
    return field(default_factory=cls, metadata={"help": help})


# ---------------------------------------------------------------------------------------------------- model


class Init(Enum):
    auto = "auto"
    pretrained = "pretrained"
    random = "random"


@dataclass
class Shape:
    """The transformer's shape, in transformers' own names; a checkpoint's config.json wins over it."""

    model_type: str = setting("class of the architecture: llama or mistral", "llama")
    hidden_size: int = setting("width of the residual stream")
    intermediate_size: int = setting("width of the feed-forward layer")
    num_hidden_layers: int = setting("number of blocks")
    num_attention_heads: int = setting("query heads")
    num_key_value_heads: int = setting("key and value heads")
    head_dim: int = setting("width of one head")
    vocab_size: int = setting("tokens in the vocabulary", 32000)
    max_position_embeddings: int = setting("longest sequence, in tokens", 8192)
    rope_theta: float = setting("base of the rotary position embedding", 10000.0)
    sliding_window: int | None = setting("attention window in tokens; null for none", None)


@dataclass
class ChatFormat:
    """How a chat model marks a user's turn and its own answer; plain text, no special tokens."""

    user: str = setting("before the user's text", "<|prompt|>")
    end: str = setting("after the user's text", "</s>")
    answer: str = setting("before the model's answer", "<|answer|>")


@dataclass
class Model:
    path: str | None = setting("hub name or local folder with weights and tokenizer; null for none", None)
    revision: str | None = setting("branch, tag or commit of the hub repository", None)
    init: Init = setting("auto: pretrained if there is a path, else random; or pretrained, random", Init.auto)
    init_seed: int = setting("seed of random weights", 0)
    variant: str = setting("base or chat: which published weights, and whether the chat format is used", "base")
    variants: list[str] = setting("the variants that exist", ["base"])
    lr: float = setting("a learning rate that suits LoRA on this model: the default of optimizer.lr", 2e-4)
    chat: ChatFormat = nested(ChatFormat, "the chat format")
    shape: Shape = nested(Shape, "the shape used for random weights and for planning")


# ------------------------------------------------------------------------------------------------ precision


class Storage(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"
    nf4 = "nf4"
    fp4 = "fp4"


class Compute(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass
class Precision:
    storage: Storage = setting("how the backbone's linear weights are stored")
    compute: Compute = setting("type of the backbone's arithmetic and of the weights that are not quantised")
    double_quant: bool = setting("quantise the 4-bit scales too (4.127 instead of 4.5 bits a weight)", False)
    gradient_checkpointing: bool = setting("recompute each block in the backward pass: slower, less memory", False)


# ----------------------------------------------------------------------------------------------------- lora


@dataclass
class Adapter:
    """What of the backbone trains."""


@dataclass
class Lora(Adapter):
    rank: int = setting("rank of the update", 16)
    alpha: float = setting("scale: the update counts alpha/rank times (alpha/sqrt(rank) with rslora)", 32.0)
    dropout: float = setting("dropout before the adapter, 0 to 1", 0.0)
    rslora: bool = setting("rank-stabilised scale (arXiv:2312.03732)", False)
    last_k: int | None = setting("adapt only the last k blocks; null for all", None)
    targets: Any = setting("attention, mlp, all_linear, qv, or a list of module names", "all_linear")


@dataclass
class Dora(Lora):
    """Weight-decomposed LoRA (arXiv:2402.09353)."""


@dataclass
class NoAdapter(Adapter):
    """Only the head trains."""


@dataclass
class FullFinetune(Adapter):
    """Every weight of the backbone trains."""


# ----------------------------------------------------------------------------------------------------- head


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


# ------------------------------------------------------------------------------------- optimizer and schedule


@dataclass
class Optimizer:
    lr: float = setting("peak learning rate", "${model.lr}")
    weight_decay: float = setting("decoupled decay; never on norms and biases", 0.01)
    beta1: float = setting("decay of the first moment", 0.9)
    beta2: float = setting("decay of the second moment", 0.999)
    eps: float = setting("added to the denominator", 1e-8)


@dataclass
class AdamW(Optimizer):
    """torch's AdamW, fp32 states."""


@dataclass
class AdamW8bit(Optimizer):
    """bitsandbytes' AdamW, states in 8 bits."""


@dataclass
class PagedAdamW8bit(Optimizer):
    """bitsandbytes' AdamW, states in 8 bits and paged to host memory when the GPU's is short."""


@dataclass
class Schedule:
    warmup: float = setting("share of all steps spent warming up, 0 to 1", 0.05)


@dataclass
class Linear(Schedule):
    """Down to zero in a straight line."""


@dataclass
class Cosine(Schedule):
    """Down to zero along half a cosine."""


@dataclass
class Constant(Schedule):
    """Stays at the peak."""


# ----------------------------------------------------------------------------------------------------- data


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
    validation_fraction: float = setting("share of the groups held out if there is no validation file", 0.2)
    test_fraction: float = setting("share of the groups kept for the test part if there is no test file", 0.0)
    split_seed: int = setting("seed of the split into parts", 0)


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
class TableData(FileData):
    """One text and one label a row."""

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
class GeneratedData(Data):
    """Arena records made on the spot, whose winner follows from the answers' content."""

    rows: int = setting("records to make", 2000)
    seed: int = setting("seed of the records", 0)
    noise: float = setting("share of the labels replaced by another one, 0 to 1", 0.1)
    swap_augment: bool = setting("train on every row in both orders of the answers", False)


# -------------------------------------------------------------------------------- trainer, device, tracking


@dataclass
class Trainer:
    epochs: float = setting("passes over the training part", 2.0)
    max_steps: int | None = setting("optimizer steps; overrides epochs", None)
    micro_batch: int = setting("rows per forward pass", 8)
    effective_batch: int = setting("rows per optimizer step; a multiple of micro_batch", 16)
    eval_batch: int | None = setting("rows per forward pass in evaluation; null takes micro_batch", None)
    clip_norm: float | None = setting("largest gradient norm; null does not clip", 1.0)
    validate_every: int | None = setting("steps between validations; null makes five in the run", None)
    patience: int | None = setting("stop after this many validations without a better one; null never", None)
    log_every: int = setting("steps between writes of their rows to metrics.csv", 10)
    score_test: bool = setting("score the test part, once, at the end", False)


@dataclass
class Device:
    accelerator: str = setting("auto, cpu or cuda", "auto")
    name: str = setting("what messages call it", "this machine")
    types: list[str] = setting("compute types it has; empty asks the machine", [])
    threads: int | None = setting("CPU threads; null leaves torch's choice", None)


@dataclass
class Tracking:
    """Where results go besides the run folder."""


@dataclass
class NoTracking(Tracking):
    """The run folder alone."""


@dataclass
class WandbTracking(Tracking):
    mode: str = setting("auto (online with a key and a network, else offline), online, offline, disabled", "auto")
    project: str = setting("W&B project", "danube_sweep")
    entity: str | None = setting("W&B user or team", None)
    group: str | None = setting("W&B group", None)
    tags: list[str] = setting("W&B tags", [])
    timeout_s: float = setting("seconds to wait for the server before going offline", 10.0)


@dataclass
class Config:
    """One trial and the settings of its run."""

    seed: int = setting("seed of adapter, head and dropout", 0)
    name: str | None = setting("a name for people; not part of the trial", None)
    model: Model = setting("the backbone")
    precision: Precision = setting("storage and compute type")
    lora: Adapter = setting("what of the backbone trains")
    head: Head = setting("what turns hidden states into the answer")
    optimizer: Optimizer = setting("update rule")
    schedule: Schedule = setting("learning rate over time")
    data: Data = setting("task and files")
    trainer: Trainer = setting("steps, batches, validation")
    device: Device = setting("where it runs; not part of the trial")
    tracking: Tracking = setting("where it is logged; not part of the trial")


OPTIONS: dict[str, dict[str, type]] = {
    "model": {"model": Model},
    "precision": {"precision": Precision},
    "lora": {"lora": Lora, "dora": Dora, "none": NoAdapter, "full": FullFinetune},
    "head": {"sequence": SequenceHead, "preference": PreferenceHead, "causal": CausalHead, "lm": LMHead},
    "optimizer": {"adamw": AdamW, "adamw_8bit": AdamW8bit, "paged_adamw_8bit": PagedAdamW8bit},
    "schedule": {"linear": Linear, "cosine": Cosine, "constant": Constant},
    "data": {"arena": ArenaData, "table": TableData, "text": TextData, "generated": GeneratedData},
    "trainer": {"trainer": Trainer},
    "device": {"device": Device},
    "tracking": {"wandb": WandbTracking, "none": NoTracking},
}
"""Config group -> option of its schema -> dataclass; groups whose options differ only in values have one."""
