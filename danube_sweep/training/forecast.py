"""The planner's prediction for a run that is built: its true shape, its own longest row, its device."""

from dataclasses import replace

from danube_sweep.config.schema import Config, Device, RowLayout
from danube_sweep.errors import UnknownArchitecture
from danube_sweep.model.backbone import Backbone
from danube_sweep.planner.memory import GIB, Memory, memory_of
from danube_sweep.planner.planned_architecture import described_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.step_seconds import seconds_of
from danube_sweep.planner.what_fits import FITS, fit_on
from danube_sweep.training.prepare import Prepared
from danube_sweep.training.step_plan import StepPlan


def predicted(
    config: Config, backbone: Backbone, prepared: Prepared, plan: StepPlan
) -> tuple[dict[str, float], str | None]:
    """Peak memory in bytes and seconds of a step, as `measured` will hold them, and a word if the memory won't do.

    On a CPU the whole process counts, on a GPU the tensors; nothing for an architecture that the planner doesn't know.
    Beside others in a pack it is still that of the trial alone, by which trials are ranked.
    """
    try:
        model = described_architecture(backbone.body.config.to_dict())
    except (KeyError, ValueError, UnknownArchitecture):
        return {}, None
    on_cpu = backbone.device.type == "cpu"
    asked = replace(config.device, count=plan.ranks.count)
    device = planned_device(replace(asked, accelerator="cpu") if on_cpu else asked)
    if not on_cpu and device.accelerator == "cpu":  # a GPU that only torch sees
        return {}, None
    lengths = prepared.parts["train"].lengths
    layout = RowLayout.flat if backbone.flat else RowLayout.padded
    placed = replace(config, device=device, data=replace(config.data, layout=layout))
    tokens_per_row = float(lengths.mean()) * (1.0 if backbone.flat else plan.padding())
    memory = memory_of(placed, model, classes=len(prepared.classes), longest=int(lengths.max()))
    seconds = seconds_of(placed, model, device, tokens_per_row=tokens_per_row)
    found = {
        "peak_memory_bytes": round(memory.total if on_cpu else memory.peak),
        "seconds_per_step": seconds.step,
    }
    return found, note_on(memory, device)


def note_on(memory: Memory, device: Device) -> str | None:
    """The word on predicted memory that is tight on a device, or too large for it; None where it fits."""
    fit = fit_on(memory, device)
    if fit.capacity_bytes is None or fit.verdict == FITS:
        return None
    needs = f"predicted to need {memory.total / GIB:.2f} GiB, and {device.name} has {fit.capacity_bytes / GIB:.2f}"
    tight = f"{needs}: tight, since measured runs took up to {fit.spread:.0%} more than predicted"
    return tight if fit.fits else f"{needs}: danube-sweep plan says what fits"
