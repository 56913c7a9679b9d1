"""What the planner expects of a run that is built: its true shape, its own longest row, the device it is on."""

from collections.abc import Sequence
from dataclasses import replace

from danube_sweep.errors import UnknownArchitecture
from danube_sweep.model import Backbone
from danube_sweep.planner.device import capacity_bytes, planned_device
from danube_sweep.planner.memory import GIB, Memory, pack_memory
from danube_sweep.planner.model import described_architecture
from danube_sweep.planner.seconds import pack_seconds
from danube_sweep.prepare import Prepared
from danube_sweep.schema import Config


def predicted(
    config: Config, backbone: Backbone, prepared: Prepared, beside: Sequence[Config] = ()
) -> tuple[dict[str, float], str | None]:
    """Peak memory in bytes and seconds of a step, as `measured` will hold them, and a word if the memory won't do.

    On a CPU the whole process counts, on a GPU the tensors; nothing for an architecture that the planner doesn't know.
    Beside others in a pack, `peak_memory_bytes` is that of the trial alone, `pack_memory_bytes` the pack's, and the
    seconds are the trial's share.
    """
    try:
        model = described_architecture(backbone.body.config.to_dict())
    except (KeyError, ValueError, UnknownArchitecture):
        return {}, None
    on_cpu = backbone.device.type == "cpu"
    device = planned_device(replace(config.device, accelerator="cpu") if on_cpu else config.device)
    if not on_cpu and device.accelerator == "cpu":  # a GPU that only torch sees
        return {}, None
    lengths = prepared.parts["train"].lengths
    pack = [replace(one, device=device) for one in (config, *beside)]
    alone, memory = (
        pack_memory(configs, model, classes=len(prepared.classes), longest=int(lengths.max()))
        for configs in (pack[:1], pack)
    )
    seconds = pack_seconds(pack, model, device, tokens_per_row=float(lengths.mean()))
    micro_batches = config.trainer.effective_batch / config.trainer.micro_batch
    found = {
        "peak_memory_bytes": _peak(alone, on_cpu),
        "seconds_per_step": micro_batches * seconds.micro_batch / len(pack),
    }
    if beside:
        found["pack_memory_bytes"] = _peak(memory, on_cpu)
    capacity = capacity_bytes(device)
    if capacity is None or memory.total <= capacity:
        return found, None
    needs, has = memory.total / GIB, capacity / GIB
    return (
        found,
        f"predicted to need {needs:.2f} GiB, and {device.name} has {has:.2f}: danube-sweep plan says what fits",
    )


def _peak(memory: Memory, on_cpu: bool) -> int:
    return round(memory.total if on_cpu else memory.peak)
