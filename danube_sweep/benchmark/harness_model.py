"""A backbone as the harness's language model: `HFLM` over transformers' own causal LM."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from transformers import GenerationConfig, PreTrainedTokenizerBase

from danube_sweep.config.schema import Compute, Config
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.causal_lm import causal_lm, padded
from danube_sweep.model.precision import DTYPES
from danube_sweep.storage.files import content_hash

_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}ANSWER{{ message['content'] }}END"
    "{% else %}USER{{ message['content'] }}END{% endif %}{% endfor %}{% if add_generation_prompt %}ANSWER{% endif %}"
)
"""The markup of `model.chat` as a chat template."""


def is_chat(config: Config, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the prompts get the chat template: where the variant is chat, or auto with a template of its own."""
    variant = config.model.variant
    return variant == "chat" or (variant == "auto" and tokenizer.chat_template is not None)


def with_template(config: Config, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, str | None]:
    """The tokenizer with a chat template, and a note if it had none: then it follows `model.chat`."""
    if tokenizer.chat_template is not None:
        return tokenizer, None
    own, chat = copy.deepcopy(tokenizer), config.model.chat
    template = _TEMPLATE
    for word, text in (("ANSWER", chat.answer), ("USER", chat.user), ("END", chat.end)):
        template = template.replace(word, f"{{{{ {text!r} }}}}")
    own.chat_template = template
    return own, "the tokenizer has no chat template: model.chat gives the markup of users and answers"


GENERATION: Final = "generation_config.json"


def generation_digest(folder: Path | None) -> str | None:
    """Tells a checkpoint's generation settings from others, by which tasks that generate are scored."""
    file = None if folder is None else folder / GENERATION
    return None if file is None or not file.is_file() else content_hash(file)


@contextmanager
def harness_model(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, *, batch_rows: int, folder: Path | None = None
) -> Iterator[Any]:
    """The backbone as an `HFLM`, in eval mode inside. An adapter that is attached takes part.

    `folder`: of the checkpoint, whose generation settings count as they do in the harness itself.
    """
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is no path
    compute = backbone.precision.compute
    before = [module.training for module in backbone.modules()]
    with padded(backbone.body):
        whole, tokenizer = causal_lm(backbone), copy.deepcopy(tokenizer)  # the harness sets its padding
        if folder is not None and (folder / GENERATION).is_file():
            whole.generation_config = GenerationConfig.from_pretrained(folder)
        try:
            yield HFLM(
                pretrained=whole,
                tokenizer=tokenizer,
                batch_size=batch_rows,
                mixed_precision_dtype=None if compute is Compute.fp32 else DTYPES[compute],
            )
        finally:
            for module, training in zip(backbone.modules(), before, strict=True):
                module.train(training)
