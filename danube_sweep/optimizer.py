"""Optimizers: parameters and a config in, a torch optimizer out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from danube_sweep.schema import AdamW, AdamW8bit, Optimizer, PagedAdamW8bit


def build_optimizer(
    config: Optimizer, backbone: Mapping[str, nn.Parameter], head: Mapping[str, nn.Parameter], *, head_lr: float | None
) -> torch.optim.Optimizer:
    """An optimizer over a trial's parameters; the head has its own learning rate, norms and biases no decay."""
    groups = _groups(backbone, config.lr, config) + _groups(head, head_lr or config.lr, config)
    options: dict[str, Any] = {"lr": config.lr, "betas": (config.beta1, config.beta2), "eps": config.eps}
    match config:
        case AdamW():
            return torch.optim.AdamW(groups, **options)
        case AdamW8bit():
            import bitsandbytes as bnb

            optimizer: torch.optim.Optimizer = bnb.optim.AdamW8bit(groups, **options)
            return optimizer
        case PagedAdamW8bit():
            import bitsandbytes as bnb

            paged: torch.optim.Optimizer = bnb.optim.PagedAdamW8bit(groups, **options)
            return paged
        case _:
            raise TypeError(f"no builder for {config}")


def _groups(parameters: Mapping[str, nn.Parameter], lr: float, config: Optimizer) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    plain = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    both = ((decayed, config.weight_decay), (plain, 0.0))
    return [{"params": group, "lr": lr, "weight_decay": decay} for group, decay in both if group]
