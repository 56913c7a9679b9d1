"""A layout in tokens: the markup around the texts of a sequence, and how the texts between are read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from danube_sweep.data.encoded import Tokens
from danube_sweep.data.layout import Layout
from danube_sweep.data.text_reader import TextReader, control_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "a"
"""Placeholder of the text before a piece of markup: a letter that joins no line break or sign after it."""


@dataclass(frozen=True)
class Frame:
    """The tokens before each text and after the last, and each text's reader: one object where they read alike."""

    before: list[Tokens]
    after: Tokens
    readers: list[TextReader]


def frame_of(layout: Layout, tokenizer: "PreTrainedTokenizerBase") -> Frame:
    """The layout in the tokenizer's tokens.

    Where the layout is `in_context`, markup and texts get the tokens that the tokenizer gives them in a whole sequence:
    many put a space before a text that is tokenised by itself.
    """
    markup = "".join([*layout.before, layout.after])
    if not layout.in_context:
        before = [_tokens(text, tokenizer) for text in layout.before]
        return Frame(before, _tokens(layout.after, tokenizer), [TextReader(tokenizer, markup)] * len(before))
    control = [token for token in tokenizer.convert_ids_to_tokens(sorted(control_ids(tokenizer, markup))) if token]
    before, readers = [], []
    for number, text in enumerate(layout.before):
        left = PROBE if number else ""
        kept = _apart(left + text, tokenizer)
        before.append(_following(left, kept, tokenizer))
        last = max((kept.rfind(token) for token in control), default=-1)
        glue = (left + text)[len(kept) :]
        readers.append(TextReader(tokenizer, markup, after=kept[max(last, 0) :], glue=glue))
    return Frame(before, _following(PROBE, PROBE + layout.after, tokenizer), readers)


def _tokens(text: str, tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    # "" is "" in every tokenizer: some put a space before each text and would make a token of it.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
    return np.array(ids, dtype=np.int32)


def _begins(whole: Tokens, begin: Tokens) -> bool:
    return len(whole) >= len(begin) and bool((whole[: len(begin)] == begin).all())


def _apart(text: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    # Without the spaces at its end, which may become part of the next text's first token.
    bare = text.rstrip(" ")
    return bare if _begins(_tokens(text, tokenizer), _tokens(bare, tokenizer)) else text


def _following(left: str, whole: str, tokenizer: "PreTrainedTokenizerBase") -> Tokens:
    # The tokens after `left` in `whole`.
    tokens, begin = _tokens(whole, tokenizer), _tokens(left, tokenizer)
    return tokens[len(begin) :] if _begins(tokens, begin) else _tokens(whole[len(left) :], tokenizer)
