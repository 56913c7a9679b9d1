"""The trained parameters of a trial, in groups with their own learning rate and weight decay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

Parameters = Mapping[str, nn.Parameter]
Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class TrainedParameters:
    """A trial's parameters. The head has its own rate; LoRA's B learn `plus_ratio` times as fast as the rest."""

    backbone: Parameters
    head: Parameters
    lr: float
    head_lr: float
    weight_decay: float
    plus_ratio: float = 1.0
    never_decayed: tuple[str, ...] = ()
    """Parts of names of the backbone's parameters that do not decay whatever their shape."""

    def groups(self) -> Groups:
        """All of them."""
        return self.of_backbone(self.backbone) + self.grouped(self.head, self.head_lr)

    def of_backbone(self, parameters: Parameters) -> Groups:
        """Parameters of the backbone at the backbone's rate, LoRA's B at theirs."""
        if self.plus_ratio == 1.0:
            return self.grouped(parameters, self.lr)
        faster = {name: one for name, one in parameters.items() if ".lora_B." in name}
        others = {name: one for name, one in parameters.items() if name not in faster}
        return self.grouped(others, self.lr) + self.grouped(faster, self.lr * self.plus_ratio)

    def grouped(self, parameters: Parameters, lr: float) -> Groups:
        """Matrices, which decay, and the rest: norms, biases and `never_decayed` do not."""
        decays = {name: one.ndim >= 2 and not self._is_kept(name) for name, one in parameters.items()}
        decayed = [one for name, one in parameters.items() if decays[name]]
        plain = [one for name, one in parameters.items() if not decays[name]]
        both = ((decayed, self.weight_decay), (plain, 0.0))
        return [{"params": group, "lr": lr, "weight_decay": decay} for group, decay in both if group]

    def _is_kept(self, name: str) -> bool:
        return any(part in f".{name}." for part in self.never_decayed)
