"""Muon for matrices and AdamW for the rest, by torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danube_sweep.config.schema import Optimizer, setting
from danube_sweep.optimizer.state_bytes import STEP_BYTES

if TYPE_CHECKING:
    from danube_sweep.optimizer.parameter_groups import TrainedParameters


@dataclass
class Muon(Optimizer):
    """Muon, by torch: orthogonalised momentum for the backbone's matrices; AdamW for heads, embeddings and vectors.

    Updates are scaled to the size of AdamW's (arXiv:2502.16982). A small matrix still moves less in few steps.
    """

    lr: float = setting("peak learning rate: 3 times AdamW's by default", "${times:${model.lr},3}")
    momentum: float = setting("decay of the momentum", 0.95)
    beta1: float = setting("AdamW part: decay of the first moment", 0.9)
    beta2: float = setting("AdamW part: decay of the second moment", 0.999)
    eps: float = setting("AdamW part: constant added to the denominator", 1e-8)

    def build(self, trained: "TrainedParameters") -> Any:
        import torch

        from danube_sweep.optimizer.several_optimizers import SeveralOptimizers

        matrices = {name: one for name, one in trained.backbone.items() if _is_matrix(name, one)}
        vectors = {name: one for name, one in trained.backbone.items() if name not in matrices}
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            options: dict[str, Any] = {"momentum": self.momentum, "adjust_lr_fn": "match_rms_adamw"}
            parts.append(torch.optim.Muon(trained.of_backbone(matrices), lr=self.lr, **options))
        if others := trained.grouped(vectors, trained.lr) + trained.grouped(trained.head, trained.head_lr):
            options = {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}
            parts.append(torch.optim.AdamW(others, **options))
        return parts[0] if len(parts) == 1 else SeveralOptimizers(parts)

    def state_bytes(self, shape: Sequence[int], each: int, *, outer: bool) -> float:
        size = math.prod(shape)
        return size * each if len(shape) == 2 and not outer else 2 * size * each + STEP_BYTES


def _is_matrix(name: str, parameter: Any) -> bool:
    return parameter.ndim == 2 and "embed" not in name


OPTION = Muon
