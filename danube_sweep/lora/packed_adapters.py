"""The adapters of a pack over one backbone: a trial's parameters are views of stacks that a linear's trials share.

So any optimizer, clipping or schedule works on a trial's own parameters, and the forward pass on all of them at once.
Axes: n trials of a group, I inputs, O outputs, R rank.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from danube_sweep.config.schema import Lora
from danube_sweep.lora.adapter_state import check_fits, prefix
from danube_sweep.lora.packed_operation import BatchLayout, GroupInBatch, Noise, Places, update
from danube_sweep.lora.peft_configs import describe_adapter
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES


@final
class PackedAdapter:
    """The LoRA weights of one trial, fp32, under the names that PEFT gives them in a backbone."""

    def __init__(self, config: Lora, description: PeftConfig, places: dict[str, nn.Linear]) -> None:
        self.config, self._description = config, description
        self.scale = config.used_alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
        self.matrices: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, linear in places.items():
            a_RI = torch.empty(config.rank, linear.in_features)
            nn.init.kaiming_uniform_(a_RI, a=math.sqrt(5))  # as PEFT starts it
            b_OR = torch.zeros(linear.out_features, config.rank)
            device = linear.weight.device
            self.matrices[name] = nn.Parameter(a_RI.to(device)), nn.Parameter(b_OR.to(device))

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, A [rank, I] and B [O, rank] of every adapted linear."""
        named = {}
        for name, (a_RI, b_OR) in self.matrices.items():
            named[f"model.{name}.lora_A.default.weight"] = a_RI
            named[f"model.{name}.lora_B.default.weight"] = b_OR
        return named

    def description(self) -> PeftConfig:
        """PEFT's own description of the adapter."""
        return self._description

    def state(self, backbone: Backbone) -> dict[str, torch.Tensor]:
        """The weights under the names that plain `PeftModel.from_pretrained` expects."""
        start = prefix(backbone)
        named: dict[str, torch.Tensor] = {}
        for name, (a_RI, b_OR) in self.matrices.items():
            named[f"{start}{name}.lora_A.weight"] = a_RI
            named[f"{start}{name}.lora_B.weight"] = b_OR
        return named

    @torch.no_grad()
    def load(self, backbone: Backbone, state: dict[str, torch.Tensor]) -> None:
        """Puts saved weights back. Raises CheckpointError unless exactly the expected ones are there, all finite."""
        expected = self.state(backbone)
        check_fits(expected, state)
        for name, value in state.items():
            expected[name].copy_(value)


@dataclass
class Present:
    """The trials whose rows make up the batch, by their places in the pack, in its order."""

    places: tuple[int, ...] = ()
    noises: Mapping[int, Noise] = field(default_factory=dict)
    """Place -> the dropout of a trial that has any, seeded for this batch."""


@dataclass(eq=False)
class RankGroup:
    """Trials of one rank on one linear: A [n, R, I] and B [n, O, R], leaves whose gradients are stacks too."""

    a_nRI: torch.Tensor
    b_nOR: torch.Tensor
    scale_n11: torch.Tensor
    places: tuple[int, ...]
    bound: bool = False
    """Whether the parameters' gradients are views of the stacks' yet."""


@final
class PackedLinear(nn.Module):
    """A frozen linear and the adapters that the trials of a pack have on it."""

    def __init__(self, base_layer: nn.Linear, name: str, dtype: torch.dtype, present: Present) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.name, self.dtype = name, dtype
        self._number = zlib.crc32(name.encode())
        self._present = present
        self._groups: list[RankGroup] = []
        self._members: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        self._found: dict[tuple[int, ...], list[tuple[RankGroup, GroupInBatch]]] = {}

    @property
    def weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.base_layer.weight
        return weight

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        base: torch.Tensor = self.base_layer(given)
        present = self._present
        parts = self._found.get(present.places)
        if parts is None:
            parts = self._found[present.places] = [*self._parts(present.places)]
        if not parts:
            return base
        chosen = (
            [self._with_noise(part, group) for group, part in parts] if present.noises else [one for _, one in parts]
        )
        if base._is_view() and type(self.base_layer) is not nn.Linear:  # of bitsandbytes: not to be changed in place
            base = base.clone()
        stacks = [stack for group, _ in parts for stack in (group.a_nRI, group.b_nOR)]
        return update(base, given, BatchLayout(chosen, len(present.places), self.dtype), stacks)

    def arrange(self, members: dict[int, PackedAdapter]) -> None:
        """Moves its trials' weights (place in the pack -> adapter) and gradients into new stacks."""
        self._groups, self._found = [], {}
        self._members = {place: adapter.matrices[self.name] for place, adapter in members.items()}
        for places in _grouped(members):
            self._groups.append(self._stacked(places, members))

    def leaves(self) -> list[torch.Tensor]:
        """Its stacks."""
        return [stack for group in self._groups for stack in (group.a_nRI, group.b_nOR)]

    def bind(self) -> None:
        """After a backward pass: every parameter's gradient is its view of the stacks' gradients."""
        for group in self._groups:
            if not group.bound and group.a_nRI.grad is not None:
                group.bound = True
                self._point(group, group.a_nRI.grad, group.b_nOR.grad, _give)

    def _stacked(self, places: tuple[int, ...], members: dict[int, PackedAdapter]) -> RankGroup:
        device = self.base_layer.weight.device
        rank = members[places[0]].config.rank
        a_nRI = torch.zeros(len(places), rank, self.in_features, device=device)
        b_nOR = torch.zeros(len(places), self.out_features, rank, device=device)
        scales = torch.tensor([members[place].scale for place in places], device=device)
        group = RankGroup(a_nRI, b_nOR, scales.float().view(-1, 1, 1), places)
        self._point(group, a_nRI, b_nOR, _move_weights)
        if any(one.grad is not None for place in places for one in self._members[place]):
            a_nRI.grad, b_nOR.grad = torch.zeros_like(a_nRI), torch.zeros_like(b_nOR)
            self._point(group, a_nRI.grad, b_nOR.grad, _move_gradients)
            group.bound = True
        a_nRI.requires_grad_(True)
        b_nOR.requires_grad_(True)
        return group

    def _point(self, group: RankGroup, a_nRI: torch.Tensor | None, b_nOR: torch.Tensor | None, give: Any) -> None:
        assert a_nRI is not None and b_nOR is not None
        for number, place in enumerate(group.places):
            a_RI, b_OR = self._members[place]
            give(a_RI, a_nRI.detach()[number])
            give(b_OR, b_nOR.detach()[number])

    def _parts(self, places: tuple[int, ...]) -> Iterator[tuple[RankGroup, GroupInBatch]]:
        device = self.base_layer.weight.device
        rows = {place: row for row, place in enumerate(places)}
        for group in self._groups:
            stack = [number for number, place in enumerate(group.places) if place in rows]
            if stack:
                batch = [rows[group.places[number]] for number in stack]
                whole = group.scale_n11 if len(stack) == len(group.places) else group.scale_n11[stack]
                yield group, GroupInBatch(_places(stack, device), _places(batch, device), whole)

    def _with_noise(self, part: GroupInBatch, group: RankGroup) -> GroupInBatch:
        present = self._present
        noises = [
            None if noise is None else replace(noise, seed=_mixed(noise.seed, self._number))
            for noise in (present.noises.get(place) for place in group.places if place in present.places)
        ]
        return GroupInBatch(part.stack, part.batch, part.scale_n11, noises)


def _grouped(members: dict[int, PackedAdapter]) -> list[tuple[int, ...]]:
    # Of one rank each: padded to a larger one, matrices have gaps in memory, and a fused or an 8-bit optimizer steps
    # on memory (docs/decisions/012).
    groups: dict[int, list[int]] = {}
    for place in sorted(members):
        groups.setdefault(members[place].config.rank, []).append(place)
    return [tuple(places) for places in groups.values()]


def _places(numbers: list[int], device: torch.device) -> Places:
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return torch.tensor(numbers, device=device)


def _move_weights(parameter: nn.Parameter, view: torch.Tensor) -> None:
    view.copy_(parameter.detach())
    parameter.data = view


def _move_gradients(parameter: nn.Parameter, view: torch.Tensor) -> None:
    if parameter.grad is not None:
        view.copy_(parameter.grad)
    parameter.grad = view


def _give(parameter: nn.Parameter, view: torch.Tensor) -> None:
    parameter.grad = view


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_033 + number) % 2**63


@final
class PackedAdapters:
    """The linears of one backbone that adapters of a pack are on. An adapter is drawn, and then arranged."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._linears: dict[str, PackedLinear] = {}
        self._present = Present()

    def draw(self, config: Lora, *, seed: int) -> PackedAdapter:
        """A fresh adapter, from `seed` alone. Raises ConfigError for modules or layers that are not there."""
        description = describe_adapter(config, self._backbone, seed=seed)
        assert isinstance(description, LoraConfig)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return PackedAdapter(config, description, self._targets(description))

    def put_alone(self, adapter: PackedAdapter) -> None:
        """Everything that passes through the backbone from now on belongs to this adapter."""
        self.arrange([adapter])
        self.expect([0], {})

    def arrange(self, adapters: Sequence[PackedAdapter | None]) -> None:
        """The pack's trials from now on, in its order; None for a trial without an adapter."""
        for name in {name for one in adapters if one is not None for name in one.matrices}:
            if name not in self._linears:
                self._wrap(name)
        for name, linear in self._linears.items():
            members = {place: one for place, one in enumerate(adapters) if one is not None and name in one.matrices}
            linear.arrange(members)

    def bind(self) -> None:
        """To be called after every backward pass: gives the parameters their gradients."""
        for linear in self._linears.values():
            linear.bind()

    def leaves(self) -> list[torch.Tensor]:
        """The tensors that get gradients: the stacks of every linear."""
        return [stack for linear in self._linears.values() for stack in linear.leaves()]

    def expect(self, places: Sequence[int], noises: Mapping[int, Noise]) -> None:
        """From now on, rows in the backbone belong to these trials, an equal share to each.

        The backward pass, which may run blocks again, comes before the next call.
        """
        self._present.places, self._present.noises = tuple(places), noises

    def _targets(self, description: LoraConfig) -> dict[str, nn.Linear]:
        found: dict[str, Any] = {}
        for name, module in self._backbone.body.named_modules():
            linear = module.base_layer if isinstance(module, PackedLinear) else module
            if hasattr(linear, "in_features") and check_target_module_exists(description, name):
                found[name] = linear
        return found

    def _wrap(self, name: str) -> None:
        parent, _, last = name.rpartition(".")
        holder = self._backbone.body.get_submodule(parent)
        base: Any = getattr(holder, last)
        packed = PackedLinear(base, name, DTYPES[self._backbone.precision.compute], self._present)
        packed.train(base.training)
        setattr(holder, last, packed)
        self._linears[name] = packed
