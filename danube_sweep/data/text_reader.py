"""Texts as token ids. A control token inside a text (`</s>`, `<|im_end|>`) is read as plain text."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Offsets = Sequence[tuple[int, int]]
"""Of every token: the characters [start, end) of the text that it comes from."""

_Tokens = Callable[[list[str]], list[list[int]]]

_HIDDEN = "\ufdd0{}\ufdd0"
"""A name that no text has: U+FDD0 is no character."""


@final
class TextReader:
    """Tokenises texts, not markup. Texts without control tokens get the ids that the tokenizer gives them.

    Control tokens are the tokenizer's special tokens, and of its other added tokens those that `markup` contains.
    `after`: the markup that the texts follow, where they are read as its continuation; `glue`: blanks between the two
    that become part of a text's first token. Without `after` every text is read by itself.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", markup: str = "", *, after: str = "", glue: str = ""
    ) -> None:
        self._tokenizer, self._after, self._glue = tokenizer, after, glue
        self._control = control_ids(tokenizer, markup)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every text, without special tokens around them."""
        found = self._following(self._after, texts, self._plain)
        read = [place for place, ids in enumerate(found) if not self._control.isdisjoint(ids)]
        if read:
            as_text = self._following(self._hidden(self._after), [texts[place] for place in read], self._as_text)
            for place, ids in zip(read, as_text, strict=True):
                found[place] = ids
        return found

    def placed(self, text: str) -> tuple[list[int], Offsets]:
        """The token ids of a text by itself and where they come from. Needs a fast tokenizer."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if self._control.isdisjoint(found["input_ids"]):
            return found["input_ids"], found["offset_mapping"]
        encoded = _without_control(self._tokenizer, self._control)[0].encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def _following(self, after: str, texts: Sequence[str], tokens: _Tokens) -> list[list[int]]:
        whole = tokens([after + self._glue + text for text in texts])
        if not after:
            return whole
        (begun,) = tokens([after])
        found = [ids[len(begun) :] if ids[: len(begun)] == begun else None for ids in whole]
        return [  # a text whose first characters join those of the markup is read by itself
            tokens([self._glue + text])[0] if ids is None else ids for text, ids in zip(texts, found, strict=True)
        ]

    def _plain(self, texts: list[str]) -> list[list[int]]:
        plain = {"add_special_tokens": False, "padding": False, "truncation": False, "verbose": False}
        return list(self._tokenizer(texts, return_attention_mask=False, **plain)["input_ids"])

    def _as_text(self, texts: list[str]) -> list[list[int]]:
        if not self._tokenizer.is_fast:
            plain = {"add_special_tokens": False, "verbose": False, "split_special_tokens": True}
            return list(self._tokenizer(texts, **plain)["input_ids"])
        backend, _ = _without_control(self._tokenizer, self._control)
        return [encoded.ids for encoded in backend.encode_batch(texts, add_special_tokens=False)]

    def _hidden(self, markup: str) -> str:
        # The markup as the tokenizer without control tokens reads it; a slow one reads the texts by themselves.
        if not (markup and self._tokenizer.is_fast):
            return ""
        _, names = _without_control(self._tokenizer, self._control)
        for name in sorted(names, key=len, reverse=True):
            markup = markup.replace(name, names[name])
        return markup


def control_ids(tokenizer: "PreTrainedTokenizerBase", markup: str) -> frozenset[int]:
    """The ids of the special tokens, and of other added tokens that `markup` contains; words are none of these."""
    added = tokenizer.added_tokens_decoder.items()
    marks = {number for number, token in added if token.special or _marks(token.content, markup)}
    return frozenset(marks | set(tokenizer.all_special_ids))


def _marks(content: str, markup: str) -> bool:
    return content in markup and not content.isspace() and not content.strip().isalnum()


@lru_cache(maxsize=2)
def _without_control(
    tokenizer: "PreTrainedTokenizerBase", control: frozenset[int]
) -> tuple["Tokenizer", dict[str, str]]:
    # The same tokenizer, in which these tokens have names that no text has: `split_special_tokens` would still give
    # their ids where the vocabulary has them, as that of a Unigram model does.
    from tokenizers import Tokenizer

    described = json.loads(tokenizer.backend_tokenizer.to_str())
    names = {name: _HIDDEN.format(number) for name, number in tokenizer.get_vocab().items() if number in control}
    for token in described["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    _rename(described["model"], names)
    described |= {"post_processor": None, "padding": None, "truncation": None}
    return Tokenizer.from_str(json.dumps(described)), names


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(name, name): number for name, number in model["vocab"].items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(name, name), score] for name, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if names.keys().isdisjoint([*pair, "".join(pair)])]
