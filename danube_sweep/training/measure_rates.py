"""Measures the rates of a device in a process of its own: `python -m danube_sweep.training.measure_rates cuda 0`.

Prints one line of JSON with the fields of `planner.probe_record.Probe`. Takes about two seconds besides the imports.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

SIZES = {"cuda": ((256, 1024, 4096), 2048), "cpu": ((16, 64, 256), 512)}
"""Rows of three matrices, and the side of the square one that each is multiplied with."""
COPIED_BYTES = {"cuda": 2**28, "cpu": 2**26}
"""More than fits into a cache."""
MEASURE_S, ROUNDS = 0.15, 5
BLOCK = 64
"""Weights that share a scale in 4 bits."""
LAYERS, LAUNCHES = 40, 6
"""Of the chain whose launches are timed; launches of a layer: linear and addition, and twice as many backward."""


def main(kind: str, index: int) -> None:
    """Measures and prints."""
    device = torch.device(kind, index) if kind == "cuda" else torch.device("cpu")
    rows, side = SIZES[kind]
    in_16_bits = torch.bfloat16 if kind == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0) else torch.half
    print(
        json.dumps(
            {
                "tflops_fp32": [_products(device, torch.float32, count, side) for count in rows],
                "tflops_16bit": [_products(device, in_16_bits, count, side) for count in rows],
                "bandwidth_gb_s": _bandwidth(device),
                "dequantised_g_s": _dequantised(device, in_16_bits, side),
                "launch_us": _launch_us(device),
            }
        )
    )


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    # Of the fastest of some rounds, each of as many calls as take long enough to be timed: others use the machine too.
    def timed(calls: int) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        _wait(device)
        return (time.perf_counter() - start) / calls

    if (first := timed(1)) > MEASURE_S:  # a type that the device only imitates
        return first
    calls = max(1, round(MEASURE_S / ROUNDS / max(timed(2), 1e-7)))
    return min(timed(calls) for _ in range(ROUNDS))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _products(device: torch.device, dtype: torch.dtype, rows: int, side: int) -> float:
    left = torch.randn(rows, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    return 2 * rows * side * side / _seconds(lambda: left @ right, device) / 1e12


def _bandwidth(device: torch.device) -> float:
    # Read and written once.
    source = torch.ones(COPIED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: torch.mul(source, 2.0, out=target), device) / 1e9


def _dequantised(device: torch.device, dtype: torch.dtype, side: int) -> float:
    from bitsandbytes import functional

    weights = torch.randn(side, side, device=device).to(dtype)
    packed, state = functional.quantize_4bit(weights, blocksize=BLOCK, quant_type="nf4")
    return side * side / _seconds(lambda: functional.dequantize_4bit(packed, state), device) / 1e9


def _launch_us(device: torch.device) -> float:
    # Modules that are too small to keep any device busy, forward and backward: this times the host.
    layers = nn.ModuleList(nn.Linear(8, 8, device=device) for _ in range(LAYERS))
    start = torch.randn(1, 8, device=device, requires_grad=True)

    def step() -> None:
        state = start
        for layer in layers:
            state = state + layer(state)
        torch.autograd.grad(state.sum(), [start, *layers.parameters()])

    return _seconds(step, device) / (LAYERS * LAUNCHES) * 1e6


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
