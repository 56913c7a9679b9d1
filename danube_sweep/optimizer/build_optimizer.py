"""Optimizers: parameters and a config in, a torch optimizer out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import nn

from danube_sweep.config import extension
from danube_sweep.config.schema import (
    Adafactor,
    Adam,
    AdamW,
    AdamW8bit,
    AdEMAMix8bit,
    Lion8bit,
    Muon,
    Optimizer,
    PagedAdamW8bit,
    PagedAdamW32bit,
    ScheduleFree,
    Sgd,
)
from danube_sweep.errors import ConfigError

Parameters = Mapping[str, nn.Parameter]
Groups = list[dict[str, Any]]


def build_optimizer(
    config: Optimizer,
    backbone: Parameters,
    head: Parameters,
    *,
    head_lr: float | None,
    plus_ratio: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer over a trial's parameters; the head has its own learning rate, norms and biases no decay.

    LoRA's B learn `plus_ratio` times as fast as the rest of the backbone.
    """
    rate = head_lr or config.lr
    if isinstance(config, Muon):
        return _muon(config, backbone, head, rate, plus_ratio)
    groups = _of_backbone(backbone, config, plus_ratio) + _groups(head, rate, config)
    match config:
        case Sgd():
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
        case Adafactor():
            return torch.optim.Adafactor(groups, lr=config.lr, d=config.clip)
        case AdamW():
            return torch.optim.AdamW(groups, **_of_adam(config), fused=True)  # a third of the time on a CPU
        case ScheduleFree():
            return _schedule_free(config, groups)
        case _ if (offer := extension.offer_of(config)) is not None:
            return _offered(config, offer, groups)
    return _bitsandbytes(config, groups)


def _of_adam(config: Adam | Muon) -> dict[str, Any]:
    return {"lr": config.lr, "betas": (config.beta1, config.beta2), "eps": config.eps}


def _bitsandbytes(config: Optimizer, groups: Groups) -> torch.optim.Optimizer:
    from bitsandbytes import optim

    built: torch.optim.Optimizer
    match config:
        case AdamW8bit():
            built = optim.AdamW8bit(groups, **_of_adam(config))
        case PagedAdamW8bit():
            built = optim.PagedAdamW8bit(groups, **_of_adam(config))
        case PagedAdamW32bit():
            built = optim.PagedAdamW32bit(groups, **_of_adam(config))
        case AdEMAMix8bit():
            options = {**_of_adam(config), "betas": (config.beta1, config.beta2, config.beta3)}
            built = optim.AdEMAMix8bit(groups, **options, alpha=config.slow)
        case Lion8bit():
            built = optim.Lion8bit(groups, lr=config.lr, betas=(config.beta1, config.beta2))
        case _:
            raise TypeError(f"no builder for {config}")
    return built


def _offered(config: Optimizer, offer: extension.Offer, groups: Groups) -> torch.optim.Optimizer:
    given = {id(parameter) for group in groups for parameter in group["params"]}
    built = extension.build(config, torch.optim.Optimizer, groups=groups)
    if given != {id(parameter) for group in built.param_groups for parameter in group["params"]}:
        raise ConfigError(f"{offer.named} cannot be used: it must hold every parameter that it is given, and no other")
    return built


def _groups(parameters: Parameters, lr: float, config: Optimizer) -> Groups:
    decayed = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    plain = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    both = ((decayed, config.weight_decay), (plain, 0.0))
    return [{"params": group, "lr": lr, "weight_decay": decay} for group, decay in both if group]


def _of_backbone(parameters: Parameters, config: Optimizer, plus_ratio: float) -> Groups:
    if plus_ratio == 1.0:
        return _groups(parameters, config.lr, config)
    faster = {name: one for name, one in parameters.items() if ".lora_B." in name}
    others = {name: one for name, one in parameters.items() if name not in faster}
    return _groups(others, config.lr, config) + _groups(faster, config.lr * plus_ratio, config)


def _muon(
    config: Muon, backbone: Parameters, head: Parameters, head_lr: float, plus_ratio: float
) -> torch.optim.Optimizer:
    matrices = {name: one for name, one in backbone.items() if one.ndim == 2 and "embed" not in name}
    rest = {name: one for name, one in backbone.items() if name not in matrices}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        options: dict[str, Any] = {"momentum": config.momentum, "adjust_lr_fn": "match_rms_adamw"}
        parts.append(torch.optim.Muon(_of_backbone(matrices, config, plus_ratio), lr=config.lr, **options))
    if others := _groups(rest, config.lr, config) + _groups(head, head_lr, config):
        parts.append(torch.optim.AdamW(others, **_of_adam(config)))
    return parts[0] if len(parts) == 1 else Together(parts)


@final
class Together(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters as one: a step is a step of each."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], defaults={})
        self._share()

    def _share(self) -> None:
        # The groups are the parts' own, so that a schedule reaches them; so are the states.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Steps each part; a closure is not supported."""
        assert closure is None
        for part in self._parts:
            part.step()
        self.state.update({key: value for part in self._parts for key, value in part.state.items()})

    def state_dict(self) -> dict[str, Any]:
        """The parts' own."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The parts' own."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


def _schedule_free(config: ScheduleFree, groups: Groups) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    # Its own warm-up stays off: it weighs a step by the rate that it finds, so the schedule's is as good.
    built: torch.optim.Optimizer = AdamWScheduleFree(groups, **_of_adam(config))
    return built


@runtime_checkable
class HasModes(Protocol):
    """An optimizer that takes gradients at one point and answers with another, and moves the weights between them."""

    def train(self) -> None:
        """Puts the weights where gradients are taken."""

    def eval(self) -> None:
        """Puts the weights where the answer is."""


def to_training(optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimizer with modes ready to step, whichever mode it was saved in; others need nothing."""
    if isinstance(optimizer, HasModes):
        optimizer.train()


@contextmanager
def answering(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the weights are those to validate and to save; after it, those to train."""
    if isinstance(optimizer, HasModes):
        optimizer.eval()
    yield
    to_training(optimizer)
