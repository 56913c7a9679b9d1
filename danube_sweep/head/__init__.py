"""Heads: from hidden states to the answer. They are fp32 and never quantised.

base  what a head is · pool, layers  their parts · classify, bradley_terry, ordinal, regression, multilabel, token,
language  a head each, or those that read the backbone's own output layer · build  config in, head out
"""

from danube_sweep.head.base_head import Classifies, Head
from danube_sweep.head.build_head import build_head, needs_lm_head

__all__ = ["Classifies", "Head", "build_head", "needs_lm_head"]
