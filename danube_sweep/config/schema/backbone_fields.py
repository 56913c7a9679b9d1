"""The model, its storage, and the part of it that trains."""

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from danube_sweep.config.schema.fields import nested, setting


class Init(Enum):
    auto = "auto"
    pretrained = "pretrained"
    random = "random"


@dataclass
class Shape:
    """The transformer's shape, in transformers' own names; a checkpoint's config.json wins over it."""

    model_type: str = setting("architecture: llama, mistral, qwen2, phi3, gemma, gemma2, deberta-v2", "llama")
    hidden_size: int = setting("width of the residual stream")
    intermediate_size: int = setting("width of the feed-forward layer")
    num_hidden_layers: int = setting("number of blocks")
    num_attention_heads: int = setting("query heads")
    num_key_value_heads: int = setting("key and value heads")
    head_dim: int = setting("width of one head")
    vocab_size: int = setting("tokens in the vocabulary", 32000)
    max_position_embeddings: int = setting("longest row of its pretraining, in tokens", 8192)
    rope_theta: float = setting("base of the rotary position embedding", 10000.0)
    sliding_window: int | None = setting("attention window in tokens; null for none", None)
    tie_word_embeddings: bool | None = setting(
        "whether the output layer is the embedding itself; null follows the architecture's published models", None
    )

    def meaning(self) -> dict[str, Any]:
        """Its fields; one that came after the first hashes counts only where it is set."""
        stated = asdict(self)
        if self.tie_word_embeddings is None:
            del stated["tie_word_embeddings"]
        return stated


@dataclass
class ChatFormat:
    """How a chat model marks a user's turn and its own answer."""

    user: str = setting("before the user's text", "<|prompt|>")
    end: str = setting("after the user's text", "</s>")
    answer: str = setting("before the model's answer", "<|answer|>")


@dataclass
class Model:
    path: str | None = setting(
        "hub name, or local folder with weights and tokenizer; null for none", None, path="folder"
    )
    revision: str | None = setting("branch, tag or commit of the hub repository", None)
    commit: str | None = setting("commit of that revision; looked up when the trial is composed, and stored", None)
    init: Init = setting("pretrained, random, or auto: pretrained if there is a path, otherwise random", Init.auto)
    init_seed: int = setting("seed of random weights", 0)
    variant: str = setting(
        "base or chat: chooses the published weights and whether texts get chat markup; "
        "auto (for model=auto): chat if the tokenizer has a chat template",
        "base",
    )
    variants: list[str] = setting("the variants that exist", ["base"])
    lr: float = setting("learning rate that suits LoRA on this model; the default of optimizer.lr", 2e-4)
    start: str | None = setting(
        "start token of every sequence, like <bos>; null for the token that the tokenizer adds itself", ""
    )
    own_template: bool = setting(
        "use the tokenizer's own chat template, if it has one; false uses model.chat, which a chat template must "
        "agree with",
        False,
    )
    chat: ChatFormat = nested(ChatFormat, "the chat format")
    shape: Shape = nested(Shape, "the shape used for random weights and for planning")


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
    auto = "auto"
    """Settled where a trial is composed: nothing below knows it."""


@dataclass
class Precision:
    storage: Storage = setting("storage type of the backbone's linear weights")
    compute: Compute = setting(
        "type of the backbone's arithmetic and of weights that are not quantised; auto: bf16 where it is native, "
        "else fp16 on a GPU and fp32 on a CPU"
    )
    double_quant: bool = setting("quantise the 4-bit scales too (4.127 instead of 4.5 bits per weight)", False)
    gradient_checkpointing: bool = setting("recompute each block in the backward pass: slower, less memory", False)


@dataclass
class Adapter:
    """The part of the backbone that trains."""


@dataclass
class LinearAdapter(Adapter):
    """An adapter in the linears of the blocks, by PEFT."""

    last_k: int | None = setting("adapt only the last k blocks; null for all", None)
    layers: list[Any] | None = setting(
        "adapt only these blocks, counted from 0, for example [0,1,20-23]; null for all", None
    )
    targets: Any = setting("attention, mlp, all_linear, qv, or a list of module names", "all_linear")


LORA_SCALE, RSLORA_SCALE = 2.0, 8.0
"""The scale of an update where lora.alpha is null: at rank 16 that of alpha=32."""


class Bias(Enum):
    none = "none"
    lora_only = "lora_only"
    all = "all"


@dataclass
class Lora(LinearAdapter):
    rank: int = setting("rank of the update", 16)
    alpha: float | None = setting(
        "the update is scaled by alpha/rank (alpha/sqrt(rank) with rslora); null gives a scale of 2 (8 with rslora) "
        "at every rank",
        None,
    )
    dropout: float = setting("dropout before the adapter, 0 to 1", 0.0)
    rslora: bool = setting("rank-stabilised scale (arXiv:2312.03732)", False)
    plus_ratio: float = setting("ratio of B's learning rate to A's (LoRA+, arXiv:2402.12354)", 1.0)
    bias: Bias = setting(
        "biases of the model that also train: none, lora_only (those of the targets) or all", Bias.none
    )

    @property
    def default_alpha(self) -> float:
        """The alpha that follows from the rank: the scale is 2, with rslora 8, as alpha=32 gives it at rank 16."""
        return RSLORA_SCALE * math.sqrt(self.rank) if self.rslora else LORA_SCALE * self.rank

    @property
    def used_alpha(self) -> float:
        """`alpha`, or the default that follows from the rank."""
        return self.default_alpha if self.alpha is None else self.alpha


@dataclass
class Dora(Lora):
    """Weight-decomposed LoRA (arXiv:2402.09353)."""


@dataclass
class Olora(Lora):
    """LoRA that starts from the QR decomposition of the weights and trains over the remainder (arXiv:2406.01775)."""


@dataclass
class Adalora(LinearAdapter):
    """LoRA as singular values; the least important ones are removed during training (arXiv:2303.10512)."""

    rank: int = setting("rank at the start", 12)
    target_rank: int = setting("mean rank at the end", 8)
    alpha: float | None = setting("the update is scaled by alpha/rank; null means twice target_rank", None)
    dropout: float = setting("dropout before the adapter, 0 to 1", 0.0)
    warmup: float = setting("share of all steps before ranks fall", 0.1)
    final: float = setting("share of all steps after ranks have fallen", 0.3)
    delta_t: int = setting("steps between two allocations of rank", 10)
    orthogonality: float = setting("weight of the loss that keeps the singular vectors orthogonal", 0.5)
    beta1: float = setting("decay of the average importance", 0.85)
    beta2: float = setting("decay of the average change of the importance", 0.85)

    @property
    def default_alpha(self) -> float:
        """The alpha that follows from the rank at the end: the scale is then 2."""
        return LORA_SCALE * self.target_rank

    @property
    def used_alpha(self) -> float:
        """`alpha`, or the default that follows from the rank."""
        return self.default_alpha if self.alpha is None else self.alpha


@dataclass
class Ia3(LinearAdapter):
    """A factor per output; in the last linear of the feed-forward, a factor per input (arXiv:2205.05638)."""


@dataclass
class Vera(LinearAdapter):
    """Two vectors around random projections that all linears share (arXiv:2310.11454), drawn by the trial's seed."""

    rank: int = setting("width of the random projections", 256)
    dropout: float = setting("dropout before the adapter, 0 to 1", 0.0)
    d_initial: float = setting("initial value of the inner vector", 0.1)


@dataclass
class Peft(LinearAdapter):
    """Another PEFT adapter, with PEFT's own fields; docs/adapters.md lists them."""

    type: str = setting("PEFT's name: lora, oft, boft, loha, lokr, hra, …", "oft")
    fields: Any = setting("PEFT's own fields, for example {r:8}; null for PEFT's defaults", None)


@dataclass
class NoAdapter(Adapter):
    """Only the head trains."""


@dataclass
class FullFinetune(Adapter):
    """Every weight of the backbone trains."""
