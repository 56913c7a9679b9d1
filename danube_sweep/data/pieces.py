"""Texts that are cut into pieces instead of shortened: running text, and words with a label each."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from danube_sweep.data.encoded import Encoded, Tokens, Words
from danube_sweep.data.records import Record, group_codes
from danube_sweep.data.text_reader import TextReader
from danube_sweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_pieces(
    records: Sequence[Record], tokens_of: dict[str, Tokens], begin: Tokens, end: Tokens, max_length: int
) -> Encoded:
    """Consecutive pieces of every text from `begin` to `end`, each with the id "<id>:<piece>"."""
    ids: list[str] = []
    pieces: list[Tokens] = []
    groups: list[str] = []
    for record in records:
        tokens = np.concatenate([begin, tokens_of[record.texts[0]], end])
        for number, start in enumerate(range(0, len(tokens) - 1, max_length)):  # a last token alone predicts nothing
            ids.append(f"{record.id}:{number}")
            pieces.append(tokens[start : start + max_length])
            groups.append(record.group)
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
    return _encoded(ids, pieces, (lengths - 1).astype(np.float32), groups, None)


def word_pieces(
    records: Sequence[Record],
    tokenizer: "PreTrainedTokenizerBase",
    begin: Tokens,
    reader: TextReader,
    *,
    max_length: int,
    overlap: int,
) -> Encoded:
    """Pieces that repeat the last `overlap` tokens of the one before; every word is classified in exactly one of them.

    Each begins with `begin`.

    A word is placed at its last token, where a decoder has read all of it. Raises ModelError for a tokenizer that does
    not say which characters its tokens come from.
    """
    if not tokenizer.is_fast:
        raise ModelError("model.path: head=token needs a fast tokenizer (one with a tokenizer.json)")
    room = max_length - len(begin)
    overlap = min(overlap, room - 1)
    ids: list[str] = []
    pieces: list[Tokens] = []
    found: list[Words] = []
    groups: list[str] = []
    for record in records:
        tokens, positions = _placed(record.texts, tokenizer, reader)
        labels = np.full(len(positions), -1) if record.label is None else np.array(record.label)
        words = np.stack([np.arange(len(positions)), positions, labels], axis=1).astype(np.int32)
        for number, (start, first, stop) in enumerate(_windows(len(tokens), room, overlap)):
            here = words[(positions >= first) & (positions < stop)] - np.array([0, start - len(begin), 0], np.int32)
            if len(here):
                ids.append(f"{record.id}:{number}")
                pieces.append(np.concatenate([begin, tokens[start:stop]]))
                found.append(here)
                groups.append(record.group)
    return _encoded(ids, pieces, np.array([len(words) for words in found], dtype=np.float32), groups, found)


def _windows(length: int, max_length: int, overlap: int) -> list[tuple[int, int, int]]:
    # Start, first new token and end of every piece.
    windows = [(0, 0, min(length, max_length))]
    while windows[-1][2] < length:
        done = windows[-1][2]
        start = done - overlap
        windows.append((start, done, min(length, start + max_length)))
    return windows


def _placed(
    words: Sequence[str], tokenizer: "PreTrainedTokenizerBase", reader: TextReader
) -> tuple[Tokens, NDArray[np.int64]]:
    # The text's tokens, and the last one of every word; a word without its own token shares the one before.
    ids, offsets = reader.placed("".join(words))
    tokens = np.array(ids or [tokenizer.pad_token_id], dtype=np.int32)
    starts = np.array([start for start, _ in offsets] or [0])
    ends = np.array(list(accumulate(map(len, words))))
    return tokens, np.maximum(np.searchsorted(starts, ends, side="left") - 1, 0)


def _encoded(
    ids: list[str], pieces: list[Tokens], weights: NDArray[np.float32], groups: list[str], words: list[Words] | None
) -> Encoded:
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
    spans = np.stack([np.zeros_like(lengths), lengths], axis=1).reshape(len(pieces), 1, 2)
    sizes = lengths.reshape(-1, 1)
    return Encoded(ids, pieces, spans, None, weights, sizes, words, groups=group_codes(groups))
