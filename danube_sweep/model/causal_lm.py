"""A backbone as transformers' own causal language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from danube_sweep.model.backbone import Backbone
from danube_sweep.model.unpadded import FLAT


def causal_lm(backbone: Backbone) -> Any:
    """The causal LM around the body, under transformers' names. It shares every module with the backbone."""
    last = backbone.lm_head if backbone.lm_head is not None else backbone.spare_lm_head
    assert last is not None
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(backbone.body.config)
    whole.model, whole.lm_head = backbone.body, last
    return whole


@contextmanager
def padded(body: PreTrainedModel) -> Iterator[None]:
    """Inside, a body of `use_flat` attends as transformers' own does: by rows with padding."""
    kernel = body.config._attn_implementation
    if not kernel.startswith(FLAT):
        yield
        return
    body.set_attn_implementation(kernel.removeprefix(FLAT))
    try:
        yield
    finally:
        body.set_attn_implementation(kernel)
