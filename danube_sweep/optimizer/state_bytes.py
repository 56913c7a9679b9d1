"""Bytes that hold an optimizer's states for one tensor."""

import math

FP32 = 4
STATES_A_SCALE, SMALLEST_8BIT = 256, 4096
"""bitsandbytes' 8-bit optimizers: states that share a scale; tensors with fewer elements keep fp32 states."""
STEP_BYTES = 4
"""torch's AdamW counts the steps of every tensor in a tensor."""


def in_8_bits(elements: int, states: int) -> float:
    """So many states of each element, by bitsandbytes."""
    if elements < SMALLEST_8BIT:
        return states * elements * FP32
    return states * (elements + math.ceil(elements / STATES_A_SCALE) * FP32)
