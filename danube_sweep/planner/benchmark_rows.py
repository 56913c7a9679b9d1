"""How many rows of a benchmark go through the backbone at a time."""

from dataclasses import replace
from typing import Final

from danube_sweep.config.facts.architectures import Architecture
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Config, Device
from danube_sweep.planner.planned_architecture import planned_architecture
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.several_devices import alone
from danube_sweep.planner.what_fits import fit_of

LONGEST: Final = 4096
"""Tokens of the longest prompts: five examples of MMLU's law and history have about 3,000."""
MOST: Final = {"cpu": 8}
_MOST_ELSEWHERE: Final = 64


def benchmark_rows(config: Config) -> int:
    """The largest power of two whose rows fit the device at the length of the longest prompts; at least 1.

    The logits of every token are there at once, as the harness asks for them. Raises ModelError for a folder that the
    planner cannot read.
    """
    model, device = planned_architecture(config.model), planned_device(config.device)
    length = min(LONGEST, model.positions or LONGEST)
    rows = MOST.get(device.accelerator, _MOST_ELSEWHERE)
    while rows > 1 and not _fits(config, rows, length, model, device):
        rows //= 2
    return rows


def _fits(config: Config, rows: int, length: int, model: Architecture, device: Device) -> bool:
    trainer = replace(config.trainer, micro_batch=1, effective_batch=1, eval_batch=rows)
    scored = replace(config, head=OPTIONS["head"]["lm"](), trainer=trainer)
    return fit_of(scored, model, alone(device), longest=length).fits
