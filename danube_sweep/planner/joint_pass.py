"""Trials that train over one backbone, as one forward pass; a trial alone is the case of one."""

from collections.abc import Sequence
from dataclasses import replace

from danube_sweep.config.facts.architectures import Architecture, lies_flat
from danube_sweep.config.schema import Adapter, Compute, Config, NoAdapter, RowLayout
from danube_sweep.planner.symbolic_pass import Pass


def walk_of(config: Config, model: Architecture, length: int) -> Pass:
    """The forward pass of one full micro-batch of rows of `length` tokens."""
    on_cpu = config.device.accelerator == "cpu"
    flat = lies_flat(config.data.layout, config.model.shape.model_type, "cpu" if on_cpu else "cuda", padding=1.0)
    padded = config.trainer.micro_batch * config.head.passes > 1 and not flat
    has_bf16 = "bf16" in config.device.types or not config.device.types  # compute capability 8.0, and flash attention
    grouped = on_cpu or (has_bf16 and config.precision.compute is not Compute.fp32)
    return Pass(model, config.precision, config.lora, length, padded=padded, cpu=on_cpu, grouped=grouped, flat=flat)


def joint_walk(configs: Sequence[Config], model: Architecture, length: int) -> Pass:
    """The forward pass of all trials of a pack: tensors that one trial's adapter needs in a block are kept for all."""
    walk = walk_of(configs[0], model, length)
    if len(configs) == 1:
        return walk
    members = tuple(config.lora for config in configs)
    padded = walk.padded or (distinct_batches(configs) > 1 and not walk.flat)
    return replace(walk, adapter=max(members, key=_trains), padded=padded, members=members)


def _trains(adapter: Adapter) -> bool:
    return not isinstance(adapter, NoAdapter)


def distinct_batches(configs: Sequence[Config]) -> int:
    """Different micro-batches of a step: trials over the same encoded rows in the same order share one."""
    return len({batches_key(config) for config in configs})


def batches_key(config: Config) -> str:
    """Trials with equal keys read the same encoded rows in the same order."""
    data = replace(config.data, order_seed=config.order_seed, layout=RowLayout.auto)
    return repr((data, config.head.target, config.trainer.effective_batch))
