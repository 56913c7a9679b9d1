"""Trials that train over one backbone, as one forward pass; a trial alone is the case of one."""

from collections.abc import Sequence
from dataclasses import replace

from danube_sweep.architecture import Architecture, adapted_blocks, target_names
from danube_sweep.planner.walk import Pass
from danube_sweep.schema import Adapter, Compute, Config, LinearAdapter, Lora, NoAdapter

PADDING = 0.5
"""The most that the adapters of a group are padded to its largest rank, as a share of their own ranks."""


def walk_of(config: Config, model: Architecture, length: int) -> Pass:
    """The forward pass of one full micro-batch of rows of `length` tokens."""
    padded = config.trainer.micro_batch * config.head.passes > 1
    on_cpu = config.device.accelerator == "cpu"
    has_bf16 = "bf16" in config.device.types or not config.device.types  # compute capability 8.0, and flash attention
    grouped = on_cpu or (has_bf16 and config.precision.compute is not Compute.fp32)
    return Pass(model, config.precision, config.lora, length, padded=padded, cpu=on_cpu, grouped=grouped)


def joint_walk(configs: Sequence[Config], model: Architecture, length: int) -> Pass:
    """The forward pass of all trials of a pack: a block keeps for every trial what it keeps for any of them."""
    walk = walk_of(configs[0], model, length)
    if len(configs) == 1:
        return walk
    return replace(walk, adapter=_joint_adapter(configs, model), padded=walk.padded or distinct_batches(configs) > 1)


def distinct_batches(configs: Sequence[Config]) -> int:
    """Different micro-batches of a step: trials over the same encoded rows in the same order share one."""
    return len({batches_key(config) for config in configs})


def batches_key(config: Config) -> str:
    """Trials with equal keys read the same encoded rows in the same order."""
    return repr((config.data, type(config.head), config.trainer.effective_batch))


def rank_groups(ranks: Sequence[int]) -> list[list[int]]:
    """The ranks, smallest first, in the groups whose products are taken together."""
    groups: list[list[int]] = []
    for rank in sorted(ranks):
        last = [*groups[-1], rank] if groups else []
        if last and rank * len(last) - sum(last) <= PADDING * sum(last):
            groups[-1] = last
        else:
            groups.append([rank])
    return groups


def padded_ranks(configs: Sequence[Config]) -> list[int]:
    """The rank that each trial's adapter is stored with: its group's largest; 0 without an adapter."""
    ranks = [config.lora.rank if isinstance(config.lora, Lora) else 0 for config in configs]
    largest = {rank: group[-1] for group in rank_groups([rank for rank in ranks if rank]) for rank in group}
    return [largest.get(rank, 0) for rank in ranks]


def _joint_adapter(configs: Sequence[Config], model: Architecture) -> Adapter:
    # Every block and linear that any of them adapts, with the mean rank.
    adapters = [config.lora for config in configs if isinstance(config.lora, LinearAdapter)]
    if not adapters:
        return NoAdapter()
    blocks = {block for adapter in adapters for block in adapted_blocks(adapter, model.layers)}
    names = {name for adapter in adapters for name in target_names(adapter.targets, model.family)}
    rank = round(sum(padded_ranks(configs)) / len(configs))
    return Lora(layers=sorted(blocks), targets=sorted(names), rank=max(1, rank))
