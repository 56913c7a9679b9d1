"""The parameters that ranks divide (lora=full with device.sharding=full), while they train.

An optimizer that updates by element steps on this rank's parts. Checkpoints hold whole tensors, which all ranks gather.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from danube_sweep.model.sharded import fitted, gathered, is_divided, own_part
from danube_sweep.training.ranks import Ranks


@dataclass(frozen=True)
class Gathered:
    """What a checkpoint of divided weights holds: whole tensors on the first rank, empty ones on the others."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


@final
class Shards:
    """The parameters of a trial as its optimizer sees them: this rank's parts of those that are divided."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._divided = [one for one in parameters.values() if is_divided(one)]
        self._parts = [nn.Parameter(own_part(one)) for one in self._divided]
        self.whole = [one for one in parameters.values() if not is_divided(one)]
        """Those that every rank holds, whose gradients are added up at a step's border."""

    def __bool__(self) -> bool:
        return bool(self._divided)

    def of(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The parameters to step on, by the same names. A part shares its memory with the model."""
        parts = dict(zip(map(id, self._divided), self._parts, strict=True))
        return {name: parts.get(id(one), one) for name, one in parameters.items()}

    def take_gradients(self) -> None:
        """Gives the parts their gradients, which the ranks have added up in the backward pass."""
        for one, part in zip(self._divided, self._parts, strict=True):
            part.grad = None if one.grad is None else own_part(one.grad)
            one.grad = None

    def clip(self, limit: float, ranks: Ranks) -> torch.Tensor:
        """Clips the gradients to a norm of `limit` over all parameters; returns the norm before."""
        if not self._divided:
            return nn.utils.clip_grad_norm_(self.whole, limit)
        own = [one.grad for one in self._parts if one.grad is not None]
        others = [one.grad for one in self.whole if one.grad is not None]
        square = nn.utils.get_total_norm(own).float().square()
        ranks.add_up([square])
        norm = (square + nn.utils.get_total_norm(others).float().square()).sqrt()
        nn.utils.clip_grads_with_norm_([*self._parts, *self.whole], limit, norm)
        return norm

    def gathered(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimizer's state over whole tensors, for the first rank. All ranks must call it."""
        state = optimizer.state_dict()
        if not self:  # and an optimizer that does not step by element may have a state of its own form
            return state
        states = {}
        for number, part, divided in self._of_optimizer(optimizer):
            values = state["state"].get(number, {})
            states[number] = {
                name: gathered(value, divided) if _is_like(value, part) else value for name, value in values.items()
            }
        return {**state, "state": {**state["state"], **states}}

    def divided(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state over this rank's parts, from one over whole tensors."""
        if not self:
            return state
        states = {}
        for number, _, divided in self._of_optimizer(optimizer):
            values = state["state"].get(number, {})
            states[number] = {
                name: own_part(fitted(value, divided)).clone() if _is_like(value, divided) else value
                for name, value in values.items()
            }
        return {**state, "state": {**state["state"], **states}}

    def _of_optimizer(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, nn.Parameter, nn.Parameter]]:
        # The divided parameters' numbers in its state.
        numbers = {id(part): place for place, part in enumerate(self._parts)}
        stepped = [one for group in optimizer.param_groups for one in group["params"]]
        for number, one in enumerate(stepped):
            if id(one) in numbers:
                yield number, one, self._divided[numbers[id(one)]]


def _is_like(value: Any, parameter: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape
