"""Facts about an architecture, without its code: linears by name and size, norms, and names for LoRA's targets.

Parameter counts follow exactly; the planner's formulas and the names of `lora.targets` are read from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from danube_sweep.config.schema import Adapter, FullFinetune, LinearAdapter, NoAdapter, RowLayout, Shape


@dataclass(frozen=True)
class LinearShape:
    """A linear layer of a block: the last part of its name, its sizes, and whether it has a bias."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Family:
    """Facts shared by the models of one `model_type`."""

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    query_value: tuple[str, ...]
    norms: int = 2
    """Norms of a block."""
    biased: tuple[str, ...] = ()
    tied: bool = False
    """Whether the output layer is the embedding itself."""
    eager: bool = False
    """Whether attention scores are kept as a matrix, T² a head, as no fused kernel computes them."""
    capped: bool = False
    """Whether the output layer's logits are bounded by a tanh."""
    unit_offset: bool = False
    """Whether norms scale by 1 + weight, in fp32."""
    encoder: bool = False
    """Whether it is an encoder: no output layer, layer norms, relative positions."""

    @property
    def linears(self) -> tuple[str, ...]:
        return self.attention + self.mlp


_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = ("gate_proj", "up_proj", "down_proj")
_BERT = ("query_proj", "key_proj", "value_proj", "attention.output.dense")

FAMILIES = {
    "llama": Family(_QKVO, _GATED, ("q_proj", "v_proj")),
    "mistral": Family(_QKVO, _GATED, ("q_proj", "v_proj")),
    "qwen2": Family(_QKVO, _GATED, ("q_proj", "v_proj"), biased=("q_proj", "k_proj", "v_proj"), tied=True),
    "phi3": Family(("qkv_proj", "o_proj"), ("gate_up_proj", "down_proj"), ("qkv_proj",)),
    "gemma": Family(_QKVO, _GATED, ("q_proj", "v_proj"), tied=True, unit_offset=True),
    "gemma2": Family(
        _QKVO, _GATED, ("q_proj", "v_proj"), norms=4, tied=True, unit_offset=True, eager=True, capped=True
    ),
    "deberta-v2": Family(
        _BERT,
        ("intermediate.dense", "output.dense"),
        ("query_proj", "value_proj"),
        biased=(*_BERT, "intermediate.dense", "output.dense"),
        eager=True,
        encoder=True,
    ),
}
"""`model.shape.model_type` -> family."""

TARGET_SETS = ("attention", "mlp", "all_linear", "qv")
"""The named sets of `lora.targets`; a fused projection counts for the parts it fuses."""


@final
@dataclass(frozen=True)
class Architecture:
    """A model's parts in numbers. `positions`: the tokens of the longest row that it was pretrained on."""

    family: Family
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    positions: int
    tied: bool
    window: int | None = None
    """Tokens that attention looks back; None for all."""
    row_limit: int | None = None
    """Tokens of the longest row that it can read, where a position is learned for every place; None for any length."""

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> list[LinearShape]:
        """The linears of one block."""
        sizes = {
            **dict.fromkeys(("q_proj", "query_proj"), (self.hidden, self.query)),
            **dict.fromkeys(("k_proj", "v_proj", "key_proj", "value_proj"), (self.hidden, self.kv)),
            **dict.fromkeys(("o_proj", "attention.output.dense"), (self.query, self.hidden)),
            **dict.fromkeys(("gate_proj", "up_proj", "intermediate.dense"), (self.hidden, self.intermediate)),
            **dict.fromkeys(("down_proj", "output.dense"), (self.intermediate, self.hidden)),
            "qkv_proj": (self.hidden, self.query + 2 * self.kv),
            "gate_up_proj": (self.hidden, 2 * self.intermediate),
        }
        return [LinearShape(name, *sizes[name], name in self.family.biased) for name in self.family.linears]

    @property
    def linear_weights(self) -> int:
        """Weights of all blocks' linears, which int8 and 4-bit storage replace."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def embedding(self) -> int:
        """Weights of the token embedding; an untied output layer has as many."""
        return self.vocab * self.hidden

    @property
    def vectors(self) -> int:
        """Every other weight of the body: norms, biases, an encoder's relative positions."""
        biases = sum(linear.outputs for linear in self.linears if linear.bias)
        per_norm = 2 * self.hidden if self.family.encoder else self.hidden
        outside = 2 * per_norm + RELATIVE_POSITIONS * self.hidden if self.family.encoder else per_norm
        return self.layers * (self.family.norms * per_norm + biases) + outside

    @property
    def body(self) -> int:
        """Parameters without an output layer of their own."""
        return self.linear_weights + self.embedding + self.vectors

    def targets(self, asked: str | Sequence[str]) -> list[LinearShape]:
        """The linears of a block that `lora.targets` names."""
        names = target_names(asked, self.family)
        return [linear for linear in self.linears if linear.name in names]


RELATIVE_POSITIONS = 512
"""Rows of DeBERTa-v3's relative position embedding."""


def target_names(asked: str | Sequence[str], family: Family) -> list[str]:
    """The module names of `lora.targets` in a family: those of a set, or as given."""
    if not isinstance(asked, str):
        return list(asked)
    sets = {
        "attention": family.attention,
        "mlp": family.mlp,
        "all_linear": family.linears,
        "qv": family.query_value,
    }
    return list(sets.get(asked, (asked,)))


def family_of(model_type: str) -> Family:
    """The family of an architecture; one that is not known is taken for a plain decoder."""
    return FAMILIES.get(model_type, FAMILIES["llama"])


def cannot_be_flat(model_type: str) -> str | None:
    """Why the rows of an architecture cannot be laid end to end; None if they can."""
    if model_type in FAMILIES and not FAMILIES[model_type].encoder:
        return None
    return (
        f"data.layout=flat: {model_type} is not known to keep to itself each of the sequences that are laid end to "
        "end; use data.layout=auto"
    )


LEAST_PADDING = 1.1
"""Padded tokens over tokens from which rows are laid flat: gathering and scattering them costs up to 4 %."""


def lies_flat(layout: RowLayout, model_type: str, accelerator: str, padding: float) -> bool:
    """Whether rows are laid end to end: data.layout, and for auto a rule of device, family and lengths.

    `padding`: padded tokens over tokens. Flat rows attend one by one, which on a GPU costs a launch a row and block.
    """
    if layout is not RowLayout.auto:
        return layout is RowLayout.flat
    return accelerator == "cpu" and padding >= LEAST_PADDING and cannot_be_flat(model_type) is None


def adapted_blocks(adapter: LinearAdapter, blocks: int) -> list[int]:
    """The numbers of the blocks that an adapter is put into, of `blocks` there are."""
    if adapter.layers is not None:
        return sorted(set(adapter.layers))
    return list(range(max(0, blocks - (adapter.last_k or blocks)), blocks))


def first_adapted(adapter: Adapter, blocks: int) -> int:
    """The first block that changes as a trial trains; `blocks`, their number, if none does."""
    match adapter:
        case NoAdapter():
            return blocks
        case LinearAdapter():
            return min(adapted_blocks(adapter, blocks))
        case FullFinetune():
            return 0
    raise TypeError(f"nobody knows which blocks {type(adapter).__name__} adapts")


def architecture_of(shape: Shape) -> Architecture:
    """The architecture of a shape."""
    family, tied = FAMILIES[shape.model_type], shape.tie_word_embeddings
    return Architecture(
        family,
        hidden=shape.hidden_size,
        intermediate=shape.intermediate_size,
        layers=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
        kv_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        vocab=shape.vocab_size,
        positions=shape.max_position_embeddings,
        tied=family.tied if tied is None else tied,
        window=shape.sliding_window,
    )
