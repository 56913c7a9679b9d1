"""A symbolic forward pass: every operation that has a gradient to pass on names the tensors it keeps for it.

A tensor that several operations keep counts once. Widths are elements per token; `Tape.saved` is in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

from danube_sweep.config.facts.adapters import QUANTISED, is_packed
from danube_sweep.config.facts.architectures import Architecture, LinearShape, adapted_blocks, target_names
from danube_sweep.config.schema import (
    Adalora,
    Adapter,
    Compute,
    Dora,
    FullFinetune,
    Ia3,
    LinearAdapter,
    Lora,
    Peft,
    Precision,
    Storage,
    Vera,
)

FP32, INT64, BOOL = 4, 8, 1


@dataclass(frozen=True)
class Saved:
    """Bytes kept for the backward pass: for every token, and whatever the number of tokens."""

    per_token: float = 0.0
    constant: float = 0.0

    def __add__(self, other: "Saved") -> "Saved":
        return Saved(self.per_token + other.per_token, self.constant + other.constant)

    def times(self, count: int) -> "Saved":
        """The same, so many times."""
        return Saved(self.per_token * count, self.constant * count)

    def bytes(self, tokens: int) -> float:
        """Bytes of a batch of that many tokens."""
        return self.per_token * tokens + self.constant


@dataclass(frozen=True)
class Pass:
    """The facts that decide which tensors a forward pass keeps.

    `padded`: some row of the batch is shorter than the longest. `cpu`: dropout keeps a factor for every element, where
    a GPU keeps one byte. `grouped`: there is a kernel for unmasked attention with fewer key heads than query heads.
    `flat`: rows are laid end to end. `members`: the adapters of a pack's trials, where there are several.
    """

    model: Architecture
    precision: Precision
    adapter: Adapter
    length: int
    padded: bool = True
    cpu: bool = False
    grouped: bool = True
    flat: bool = False
    members: tuple[Adapter, ...] = ()

    @property
    def masked(self) -> bool:
        """Whether attention gets an explicit mask: for padding, or a window that is shorter than the rows."""
        window = self.model.window
        return self.padded or (window is not None and window < self.length)

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the compute type."""
        return FP32 if self.precision.compute is Compute.fp32 else 2

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight that is not quantised: the storage type, or the compute type beside int8 and 4-bit."""
        match self.precision.storage:
            case Storage.fp32:
                return FP32
            case Storage.bf16 | Storage.fp16:
                return 2
            case Storage.int8 | Storage.nf4 | Storage.fp4:
                return self.compute_bytes
        raise TypeError(f"no size of a weight in {self.precision.storage}")

    @property
    def projection_bytes(self) -> int:
        """Bytes of a number in VeRA's random projections: PEFT gives them the type of the weights, if they have one."""
        return FP32 if self.precision.storage is Storage.int8 else self.weight_bytes

    @property
    def residual_bytes(self) -> int:
        """Bytes of a number between blocks: the weights' type; a GPU's autocast makes layer norms give fp32."""
        return self.autocast_bytes if self.model.family.encoder else self.weight_bytes

    @property
    def autocast_bytes(self) -> int:
        """Bytes of inputs and outputs of softmax and layer norms: fp32 under a GPU's autocast, not a CPU's."""
        return self.compute_bytes if self.cpu and self.weight_bytes < FP32 else FP32

    @property
    def full(self) -> bool:
        """Whether every weight trains."""
        return isinstance(self.adapter, FullFinetune)

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """Of every trial that trains."""
        return self.members or (self.adapter,)

    @cached_property
    def adapted(self) -> frozenset[int]:
        """The blocks in which something trains."""
        blocks = self.model.layers
        if self.full:
            return frozenset(range(blocks))
        linear = [adapter for adapter in self.adapters if isinstance(adapter, LinearAdapter)]
        return frozenset(number for adapter in linear for number in adapted_blocks(adapter, blocks))

    def adapters_in(self, number: int) -> tuple[LinearAdapter, ...]:
        """The trials' adapters that a block has."""
        linear = [adapter for adapter in self.adapters if isinstance(adapter, LinearAdapter)]
        return tuple(adapter for adapter in linear if number in adapted_blocks(adapter, self.model.layers))

    @property
    def targets(self) -> list[LinearShape]:
        """The linears of an adapted block that have an adapter, of any trial."""
        linear = [adapter for adapter in self.adapters if isinstance(adapter, LinearAdapter)]
        names = {name for adapter in linear for name in target_names(adapter.targets, self.model.family)}
        return [linear for linear in self.model.linears if linear.name in names]

    @property
    def first_adapted(self) -> int:
        """The first of them; the number of blocks if there is none."""
        return min(self.adapted, default=self.model.layers)

    @property
    def trains(self) -> bool:
        """Whether a gradient reaches the backbone."""
        return bool(self.adapted)


@dataclass(frozen=True)
class Value:
    """A tensor: its name, elements per token, bytes of an element, and whether a gradient flows back through it."""

    name: str
    width: float
    each: int
    live: bool

    @property
    def size(self) -> float:
        """Bytes per token."""
        return self.width * self.each

    def named(self, name: str) -> "Value":
        """The same kind of tensor, another one."""
        return replace(self, name=name)

    def plus(self, other: "Value", name: str) -> "Value":
        """The sum: it keeps nothing."""
        return Value(name, self.width, max(self.each, other.each), self.live or other.live)


@final
class Tape:
    """Records one pass through one block with the adapters that it has."""

    def __init__(self, walk: Pass, adapters: Sequence[LinearAdapter] = ()) -> None:
        self.walk = walk
        self.adapter = adapters[0] if adapters else None
        self._adapters = [(one, target_names(one.targets, walk.model.family)) for one in adapters]
        self._linears = {linear.name: linear for linear in walk.model.linears}
        self._per_token: dict[str, float] = {}
        self._constant: dict[str, float] = {}
        self._held: set[str] = set()

    def saved(self) -> Saved:
        """All that was kept."""
        return Saved(sum(self._per_token.values()), sum(self._constant.values()))

    def held(self) -> Saved:
        """The part that checkpointing cannot free: bitsandbytes' int8 product keeps its input, unseen by torch."""
        return Saved(sum(self._per_token[name] for name in self._held))

    def trains(self, name: str) -> bool:
        """Whether a linear, or its adapter, trains."""
        return self.walk.full or self._adapts(name)

    def _adapts(self, name: str) -> bool:
        return any(name in names for _, names in self._adapters)

    def keep(self, *values: Value) -> None:
        """Keeps tensors as they are."""
        for value in values:
            self._per_token[value.name] = value.size

    def keep_bytes(self, name: str, per_token: float = 0.0, constant: float = 0.0) -> None:
        """Keeps something else: a mask, a statistic, a copy of weights."""
        self._per_token[name], self._constant[name] = per_token, constant

    def cast(self, value: Value, to_bytes: int, reader: str) -> Value:
        """The copy that an operation makes if it needs another type."""
        return value if value.each == to_bytes else replace(value, name=f"{value.name} for {reader}", each=to_bytes)

    def linear(self, given: Value, name: str) -> Value:
        """A linear layer with its adapter, if it has one."""
        layer, each = self._linears[name], self.walk.compute_bytes
        trained = self.walk.full
        read = self.cast(given, each, name)
        if trained:
            self.keep(read)
        elif given.live and self.walk.precision.storage is Storage.int8:
            # bitsandbytes keeps its input, though it needs none; of IA3's what PEFT made of it.
            made = self._peft_casts(given) or (self.walk.cpu and name == self.walk.model.family.mlp[-1])
            copied = isinstance(self.adapter, Ia3) and self._adapts(name) and made
            held = replace(given, name=f"{name} int8", each=each) if copied else given
            self.keep(held)
            self._held.add(held.name)
        if (trained or given.live) and self.walk.precision.storage is Storage.fp32:
            self._cast_weights(name, layer.weights)
        if self._adapts(name):
            self._adapter(given, layer)
            trained = True
        return Value(f"{name} out", layer.outputs, each, given.live or trained)

    def _adapter(self, given: Value, layer: LinearShape) -> None:
        match self.adapter:
            case Lora() as lora if is_packed(lora):
                self._packed(given, layer)
            case Lora() as lora:
                self._lora(lora, given, layer)
            case Adalora(rank=rank, dropout=dropout):
                self._low_rank(given, layer, rank, dropout)
                if self.walk.compute_bytes == FP32 and given.live:  # A times the singular values
                    self.keep_bytes(f"{layer.name} AE", constant=rank * layer.inputs * FP32)
            case Ia3():
                self._ia3(given, layer)
            case Vera() as vera:
                self._vera(vera, given, layer)
            case Peft():
                self._whole(given, layer)
            case _:
                raise TypeError(f"nothing is known of what {type(self.adapter).__name__} keeps")

    def _packed(self, given: Value, layer: LinearShape) -> None:
        # Its input as it is, which others keep too; dropout and casts are made again in the backward pass.
        ranks = [one.rank for one, names in self._adapters if isinstance(one, Lora) and layer.name in names]
        mean = sum(ranks) / len(self.walk.adapters)  # tokens are those of all trials
        self.keep(given, Value(f"{layer.name} low", mean, self.walk.compute_bytes, True))

    def _ia3(self, given: Value, layer: LinearShape) -> None:
        if layer.name != self.walk.model.family.mlp[-1]:
            self.keep(Value(f"{layer.name} base", layer.outputs, self.walk.compute_bytes, True))
            self.keep_bytes(f"{layer.name} factors", constant=layer.outputs * FP32 if given.live else 0)
            return
        self.keep_bytes(f"{layer.name} factors", constant=layer.inputs * FP32 if given.live else 0)
        over_bitsandbytes = self.walk.precision.storage in QUANTISED and not self.walk.cpu
        self.keep(given if over_bitsandbytes else self.cast(given, FP32, layer.name))

    def _vera(self, vera: Vera, given: Value, layer: LinearShape) -> None:
        each = self.walk.compute_bytes
        if vera.dropout > 0 and given.live:
            self.keep_bytes(f"{layer.name} dropout", given.width * (given.each if self.walk.cpu else BOOL))
        self.keep(
            Value(f"{layer.name} low", vera.rank, each, True), Value(f"{layer.name} up", layer.outputs, each, True)
        )
        if self.walk.projection_bytes != each:
            self.keep_bytes(f"{layer.name} up cast", constant=vera.rank * layer.outputs * each)
            self.keep_bytes(f"{layer.name} down cast", constant=vera.rank * layer.inputs * each if given.live else 0)

    def _whole(self, given: Value, layer: LinearShape) -> None:
        # Uncounted types: input and output in fp32, and two weights as large as the linear's.
        self.keep(
            Value(f"{layer.name} read", given.width, FP32, True), Value(f"{layer.name} base", layer.outputs, FP32, True)
        )
        self.keep_bytes(f"{layer.name} weights", constant=2 * layer.weights * FP32)

    def _peft_casts(self, given: Value) -> bool:
        # To fp32, on its own: over int8 on a CPU it sees no autocast.
        return self.walk.precision.storage is Storage.int8 and self.walk.cpu and given.each != FP32

    def _low_rank(self, given: Value, layer: LinearShape, rank: int, dropout: float) -> None:
        each = self.walk.compute_bytes
        read = self.cast(given, each, f"{layer.name} A")
        if isinstance(self.adapter, Adalora) and self._peft_casts(given):
            read = read.named(f"{layer.name} fp32 read")
        if dropout > 0:
            if given.live:
                factor = given.each if self.walk.cpu else BOOL
                self.keep_bytes(f"{layer.name} dropout", given.width * factor)
            read = read.named(f"{layer.name} dropped")
        self.keep(read, Value(f"{layer.name} low", rank, each, True))
        self._cast_weights(f"{layer.name} B", rank * layer.outputs)
        if given.live:
            self._cast_weights(f"{layer.name} A", rank * layer.inputs)

    def _lora(self, lora: Lora, given: Value, layer: LinearShape) -> None:
        each = self.walk.compute_bytes
        self._low_rank(given, layer, lora.rank, lora.dropout)
        if isinstance(lora, Dora):  # it scales by the norm of the updated weight, which it makes from an identity
            self.keep(Value(f"{layer.name} base", layer.outputs, each, True))
            self.keep(Value(f"{layer.name} update", layer.outputs, each, True))
            if lora.dropout > 0 and given.live and self.walk.precision.storage in QUANTISED:
                # It multiplies the dropped input by the dequantised weight once more.
                self.keep_bytes(f"{layer.name} dequantised", constant=layer.weights * each)
            identity = layer.inputs * (layer.inputs + lora.rank) * each
            self.keep_bytes(f"{layer.name} weight norm", constant=identity + layer.outputs * (2 * FP32 + each))

    def _cast_weights(self, name: str, numbers: float) -> None:
        # Autocast's copies of fp32 weights live until the backward pass has read them.
        if self.walk.compute_bytes < FP32:
            self.keep_bytes(f"{name} cast", constant=numbers * self.walk.compute_bytes)

    def rms_norm(self, given: Value, name: str, *, in_fp32: bool = False) -> Value:
        """An RMS norm: it keeps its input in fp32 and a statistic; `in_fp32`: it also scales in fp32."""
        out = Value(f"{name} out", given.width, given.each, given.live or self.walk.full)
        if given.live:
            self.keep(self.cast(given, FP32, name))
            self.keep_bytes(f"{name} rsqrt", FP32)
            if in_fp32:
                self.keep_bytes(f"{name} scale", constant=given.width * FP32)
        if self.walk.full:
            self.keep(Value(f"{name} normed", given.width, FP32 if in_fp32 else given.each, True))
        return out

    def layer_norm(self, given: Value, name: str) -> Value:
        """A layer norm: it keeps its input and two statistics."""
        live = given.live or self.walk.full
        if live:
            self.keep(self.cast(given, self.walk.autocast_bytes, name))
            self.keep_bytes(f"{name} statistics", 2 * FP32)
        return Value(f"{name} out", given.width, self.walk.autocast_bytes, live)

    def dropout(self, given: Value, name: str) -> Value:
        """A dropout of the model's own, in training."""
        if given.live:
            self.keep_bytes(f"{name} factor", given.width * (given.each if self.walk.cpu else BOOL))
        return given.named(f"{name} out")

    def activation(self, given: Value, name: str) -> Value:
        """An activation function: it keeps its input."""
        if given.live:
            self.keep(given)
        return given.named(name)

    def product(self, left: Value, right: Value, name: str, width: float) -> Value:
        """An elementwise or matrix product: either factor is kept for the other's gradient."""
        each = self.walk.compute_bytes
        if left.live:
            self.keep(right)
        if right.live:
            self.keep(left)
        return Value(name, width, each, left.live or right.live)
