"""The trained part of the backbone: adapters by PEFT, everything, or nothing; and the adapters of a pack.

peft_configs.py      a config in, PEFT's own description of the adapter out
target_modules.py    which linears it is put on
attach_adapter.py    puts it into the backbone
adapter_state.py     its weights out and in again, under PEFT's names
adalora_ranks.py     AdaLoRA's ranks while it trains
packed_adapters.py   plain LoRA of many trials over one backbone, and of one
packed_operation.py  the update that their adapters add to a linear
"""

from danube_sweep.lora import imported_peft  # noqa: F401  # isort: skip  # before what imports PEFT
from danube_sweep.lora.adalora_ranks import rank_allocation
from danube_sweep.lora.adapter_state import adapter_state, load_adapter_state
from danube_sweep.lora.attach_adapter import attach
from danube_sweep.lora.packed_adapters import PackedAdapter, PackedAdapters
from danube_sweep.lora.packed_operation import Noise
from danube_sweep.lora.peft_configs import peft_config

__all__ = [
    "Noise",
    "PackedAdapter",
    "PackedAdapters",
    "adapter_state",
    "attach",
    "load_adapter_state",
    "peft_config",
    "rank_allocation",
]
