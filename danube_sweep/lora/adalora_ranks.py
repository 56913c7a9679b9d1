"""AdaLoRA's rank allocation (arXiv:2303.10512): a term in the loss, and ranks that fall while it trains.

PEFT's allocator scores the singular values and masks the least important ones; when it does, and what it has seen so
far, is kept here.
"""

import dataclasses
from typing import Any, final

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator

from danube_sweep.config.schema import Adalora, Adapter
from danube_sweep.lora.peft_configs import ADAPTER
from danube_sweep.model.backbone import Backbone


def rank_allocation(backbone: Backbone, config: Adapter, *, total_steps: int) -> "RankAllocation | None":
    """The extra work of a trial with AdaLoRA besides optimizer steps; None for any other adapter."""
    return RankAllocation(backbone, config, total_steps) if isinstance(config, Adalora) else None


@final
class RankAllocation:
    """The allocator of one trial; ranks fall between the shares `warmup` and `final` of its steps."""

    def __init__(self, backbone: Backbone, config: Adalora, total_steps: int) -> None:
        self._body, self._weight = backbone.body, config.orthogonality
        description = backbone.body.peft_config[ADAPTER]
        assert isinstance(description, AdaLoraConfig)
        first, last = round(config.warmup * total_steps), round((1 - config.final) * total_steps)
        self._last = min(max(last, first + 1), total_steps)
        steps = {"tinit": min(first, self._last - 1), "tfinal": 0, "total_step": self._last}
        self._allocator = RankAllocator(self._body, dataclasses.replace(description, **steps), ADAPTER)
        self._pattern: dict[str, list[bool]] | None = None

    def penalty(self) -> torch.Tensor:
        """How far the singular vectors are from orthogonal, weighted: equation 4 of the paper, as PEFT means it."""
        distances = []
        for name, parameter in self._body.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                wide = parameter if ".lora_A." in name else parameter.T
                gram = wide @ wide.T
                distances.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
        return self._weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """To be called after the optimizer's step number `step`, from 1, while its gradients are still there."""
        allocator = self._allocator
        if step < self._last:
            allocator.update_and_allocate(self._body, step)
        elif self._pattern is None:
            allocator.update_ipt(self._body)
            _, self._pattern = allocator.update_and_allocate(self._body, step, force_mask=True)
            allocator.reset_ipt()
        else:
            allocator.mask_using_rank_pattern(self._body, self._pattern)

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed trial needs to continue as if it had not stopped."""
        allocator = self._allocator
        seen = {"mean": allocator.exp_avg_ipt, "change": allocator.exp_avg_unc}
        return {**{name: dict(values) for name, values in seen.items()}, "pattern": self._pattern}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        device = self._body.device
        mean, change = ({name: value.to(device) for name, value in state[key].items()} for key in ("mean", "change"))
        self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc = mean, change
        self._allocator.ipt = {name: torch.zeros_like(value) for name, value in mean.items()}
        self._pattern = state["pattern"]
