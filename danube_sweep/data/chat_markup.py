"""The markup around a user's text: the start token of a sequence, and the chat markup.

A tokenizer's own chat template is rendered around a sentinel, so that truncation cuts the text and never the markup.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from danube_sweep.config.facts.checkpoint_files import checkpoint_shape
from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Model
from danube_sweep.data.text_reader import control_ids
from danube_sweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "danubesweepsentinel5d1c"
"""Placeholder of the user's text while a template is rendered, without blanks that a template would strip."""

TODAY = datetime(2024, 7, 26)
"""The date in templates that print today's: the default of Llama 3.2's."""

_NOW = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")

_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
"""The pattern of a control token."""


@dataclass(frozen=True)
class Markup:
    """The text before and after the user's text; `start` begins a sequence without chat markup."""

    start: str
    before: str
    after: str
    rendered: bool = False
    """Whether it is the tokenizer's own chat template."""
    note: str | None = None
    """Which markup it is, in a line to print, where the tokenizer decided."""


def stated_markup(model: Model) -> Markup:
    """The markup as the config states it, whatever the tokenizer."""
    start = model.start or ""
    if model.variant != "chat":
        return Markup(start, start, "")
    return Markup(start, start + model.chat.user, model.chat.end + model.chat.answer)


def markup_for(model: Model, tokenizer: "PreTrainedTokenizerBase", *, trained: bool = False) -> Markup:
    """The markup of a model with its tokenizer: its own chat template, or the config's where the two agree.

    A run that is `trained` keeps its markup. Raises ModelError, in one line, for a template that cannot
    be used, and before training for markup that the model never saw.
    """
    stated = stated_markup(model)
    if is_random(model):  # its tokenizer is trained on the run's own text: any markup is text
        return stated
    start = own_start(tokenizer) if model.start is None else model.start
    if model.variant != "chat":
        without = bool(tokenizer.chat_template) and model.own_template
        note = "no chat markup: model.variant=base ignores the tokenizer's chat template" if without else None
        return Markup(start, start, "", note=note)
    as_stated = Markup(start, start + model.chat.user, stated.after)
    if trained and not model.own_template:
        return as_stated
    rendered = template_markup(model, tokenizer)
    if rendered is None:
        if not trained:
            _check_marks(model, tokenizer)
        return as_stated
    before, after = rendered
    if model.own_template:
        begun = before if before.startswith(start) else start + before
        note = f"chat markup: the tokenizer's own, {_shown(before, after)}"
        return Markup(start, begun, after, rendered=True, note=note)
    if (before.removeprefix(tokenizer.bos_token or ""), after) != (model.chat.user, stated.after):
        raise ModelError(
            f"model.path={model.path}: the tokenizer's own chat markup is {_shown(before, after)}, and model.chat "
            f"gives {_shown(model.chat.user, stated.after)}; use model=auto model.path={model.path}"
        )
    return as_stated


def own_start(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The token that the tokenizer itself puts before every text, like <s>; "" if it adds nothing."""
    plain, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    added = whole[: len(whole) - len(plain)]
    while added and whole[len(added) : len(added) + len(plain)] != plain:
        added = added[:-1]
    return "".join(tokenizer.convert_ids_to_tokens(added))


def template_markup(model: Model, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str] | None:
    """The text that the tokenizer's chat template puts before and after a user's text; None without a template.

    Templates that print today's date get `TODAY`. Raises ModelError for one that does not render the text as it is.
    """
    if not tokenizer.chat_template:
        return None
    try:
        text = _rendered(tokenizer)
    except Exception as error:  # whatever the template's code raises
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(
            f"model.path={model.path}: its chat template cannot be rendered ({reason}); use model.variant=base"
        ) from error
    parts = text.split(SENTINEL)
    if len(parts) != 2:
        raise ModelError(
            f"model.path={model.path}: its chat template renders a user's text {len(parts) - 1} times, not once; "
            "use model.variant=base"
        )
    return parts[0], parts[1]


def _rendered(tokenizer: "PreTrainedTokenizerBase") -> str:
    # transformers lets no function of ours into a template, so the calls that give today's date are written out.
    template = _NOW.sub(lambda call: repr(TODAY.strftime(call[2])), tokenizer.get_chat_template())
    if "strftime_now(" in template:
        raise ValueError("it prints the time of day in a format that it computes")
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": SENTINEL}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            date_string=TODAY.strftime("%d %b %Y"),
        )
    )


def _check_marks(model: Model, tokenizer: "PreTrainedTokenizerBase") -> None:
    # Without a template nobody says that the model knows this markup. It does if it is the option's own model (Danube
    # was trained with its marks as plain text), or if the marks are control tokens of the tokenizer.
    if not model.own_template and _has_the_options_shape(model):
        return
    marked = "".join((model.chat.user, model.chat.end, model.chat.answer))
    known = control_ids(tokenizer, marked)
    vocabulary = tokenizer.get_vocab()
    loose = [mark for mark in _MARK.findall(marked) if vocabulary.get(mark) not in known]
    if loose or not marked:
        reason = f"{loose[0]} of model.chat is not one of its special tokens" if loose else "model.chat states none"
        raise ModelError(
            f"model.path={model.path}: its tokenizer has no chat template, and {reason}; use model.variant=base, or a "
            "tokenizer with its chat template"
        )


def _has_the_options_shape(model: Model) -> bool:
    found, stated = checkpoint_shape(str(model.path), model.revision), model.shape
    sizes = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    return all(getattr(found, name) == getattr(stated, name) for name in sizes)


def _shown(before: str, after: str) -> str:
    return f"{before!r} TEXT {after!r}"
