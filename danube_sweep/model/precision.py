"""How the backbone is stored and in which type it computes."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from danube_sweep.config.facts.adapters import FOUR_BIT
from danube_sweep.config.schema import Compute, Precision, Storage

DTYPES = {Compute.fp32: torch.float32, Compute.bf16: torch.bfloat16, Compute.fp16: torch.float16}

UNQUANTISED = ["lm_head"]
"""Modules that keep the compute type over int8 and 4-bit; an explicit list replaces transformers' own."""


def weight_dtype(precision: Precision) -> torch.dtype:
    """The type of the weights that are not quantised: the storage type, or the compute type beside int8 and 4-bit."""
    match precision.storage:
        case Storage.fp32:
            return torch.float32
        case Storage.bf16:
            return torch.bfloat16
        case Storage.fp16:
            return torch.float16
    return DTYPES[precision.compute]


def quantization_config(precision: Precision) -> BitsAndBytesConfig | None:
    """The argument of `from_pretrained` that stores the linears as configured; None without quantisation.

    int8 runs with threshold 0, so that no row's outliers change another row's result.
    """
    if precision.storage in FOUR_BIT:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=precision.storage.value,
            bnb_4bit_compute_dtype=DTYPES[precision.compute],
            bnb_4bit_use_double_quant=precision.double_quant,
            llm_int8_skip_modules=UNQUANTISED,
        )
    if precision.storage is Storage.int8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=UNQUANTISED)
    return None


def keep_weights_as_loaded(module: nn.Module) -> None:
    """Stops bitsandbytes 0.50 from repacking 4-bit weights on CPUs with AVX512-BF16.

    The repacking happens in the first forward pass without gradients; training passes after it silently lose the
    gradients of their inputs, and `state_dict()` undoes it with loss.
    """
    import bitsandbytes as bnb

    for layer in module.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the backbone computes; fp32 needs none."""
    if precision.compute is Compute.fp32:
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision.compute])


def linear_kind(precision: Precision) -> str:
    """The class of the backbone's linears that `precision` asks for."""
    if precision.storage in FOUR_BIT:
        return "Linear4bit"
    return "Linear8bitLt" if precision.storage is Storage.int8 else "Linear"
