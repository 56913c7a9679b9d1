"""Config in, head out."""

import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep.config import offered_options
from danube_sweep.config.schema import Head as HeadConfig
from danube_sweep.head.base_head import Head
from danube_sweep.model.output_layer import OutputLayer


def build_head(
    config: HeadConfig,
    *,
    hidden_size: int,
    classes: list[str],
    tokenizer: PreTrainedTokenizerBase,
    lm_head: OutputLayer | None,
    seed: int,
) -> Head:
    """The head of a trial, its weights drawn from `seed` alone. Raises ConfigError for label words that clash."""
    given = {"hidden_size": hidden_size, "classes": classes, "tokenizer": tokenizer}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head: Head
        if offered_options.offer_of(config) is None:
            head = config.build(**given, lm_head=lm_head)
        else:
            head = offered_options.build(config, Head, **given)  # type: ignore[type-abstract]
    head.target, head.classes = config.target, classes
    return head
