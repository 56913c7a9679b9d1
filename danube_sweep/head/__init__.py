"""Heads: from hidden states to the answer. They are fp32 and never quantised.

kinds/  a file for each head: its fields, its weights' shapes, how it is built · base_head  the interface of a head
build_head  config in, head out · pooling, head_layers  their parts · formulas  their arithmetic, exports' too
one_class, ordered_classes, many_classes, single_number, each_word, bradley_terry, language  their modules
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danube_sweep.head.base_head import Classifies, Head

__all__ = ["Classifies", "Head"]


def __getattr__(name: str) -> Any:
    # For packages of others. Loaded when it is asked for: `kinds` is read without torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from danube_sweep.head import base_head

    return getattr(base_head, name)
