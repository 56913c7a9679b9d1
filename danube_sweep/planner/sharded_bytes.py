"""The bytes that a rank holds where ranks divide the weights (device.sharding=full)."""

from dataclasses import dataclass

from danube_sweep.config.schema import Config
from danube_sweep.config.validate import SHARDED
from danube_sweep.planner.several_devices import count_of
from danube_sweep.planner.symbolic_pass import FP32, Pass

AT_ONCE = 2
"""Gathered groups at a time: the one that computes, and the one that comes next."""


@dataclass(frozen=True)
class Division:
    """How the weights of a trial are divided: `divided` of the bytes among `ranks`, and `gathered` on each beside."""

    ranks: int = 1
    divided: float = 0.0
    gathered: float = 0.0

    def weights(self, stored: float) -> float:
        """Bytes of the weights on a rank, of those that one device would hold."""
        return stored - self.divided + self.divided / self.ranks + self.gathered

    def trained(self, size: float, stored: float) -> float:
        """With lora=full, the bytes on a rank of something of one size for every weight: gradients, states."""
        return size * (1.0 - self.divided / stored * (1.0 - 1.0 / self.ranks))


def division(config: Config, walk: Pass, stored: float) -> Division:
    """How a trial with `stored` bytes of weights is divided. Output layers that heads read stay whole."""
    ranks = count_of(config.device)
    if config.device.sharding != SHARDED or ranks == 1:
        return Division()
    model, each = walk.model, walk.weight_bytes
    kept = model.embedding if config.head.reads_lm_head else 0
    block = model.linear_weights / model.layers
    largest = max(block, 0 if config.head.reads_lm_head and model.tied else model.embedding)
    gathered = AT_ONCE * largest * each
    if walk.full:  # a group's gradients, and those that are added up in fp32
        gathered += largest * (each + FP32)
    return Division(ranks, stored - kept * each, gathered)
