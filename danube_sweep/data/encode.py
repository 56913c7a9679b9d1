"""Records as token sequences that fit `max_length`, with the place of every text in them; cached by content."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from danube_sweep import paths
from danube_sweep.config.schema import Data, Labelled, Side
from danube_sweep.data.encoded import Encoded, Tokens, load, save
from danube_sweep.data.frame import frame_of
from danube_sweep.data.layout import Layout
from danube_sweep.data.pieces import text_pieces, word_pieces
from danube_sweep.data.records import Record, group_codes
from danube_sweep.data.text_reader import TextReader
from danube_sweep.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CACHE_VERSION = 6
"""Raise it when `encode` gives other tokens for the same records, or the files change."""

_TEXTS_AT_ONCE = 1000


def encode(
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", data: Data, layout: Layout, *, num_classes: int
) -> Encoded:
    """Tokenises every text by itself, control tokens in it as text, and puts the rows together.

    The markup is kept whole. The texts share the rest of `data.max_length` as `fair_shares` says and are
    cut on the side `data.truncation` names. Language-modelling texts and labelled words are cut into pieces instead,
    with the id "<id>:<piece>". Raises ConfigError for a `max_length` with no room for a token per text, ModelError for
    a tokenizer without an end token where one is needed.
    """
    frame = frame_of(layout, tokenizer)
    before, readers = frame.before, frame.readers
    if data.labelled is Labelled.words:
        return word_pieces(
            records, tokenizer, before[0], readers[0], max_length=data.max_length, overlap=data.overlap_tokens
        )
    end = _end(tokenizer, layout)
    if data.labelled is Labelled.nothing:
        tokens_of = _tokenised((record.texts[0] for record in records), readers[0])
        return text_pieces(records, tokens_of, before[0], end, data.max_length)
    after = np.concatenate([frame.after, end])
    budget = data.max_length - sum(map(len, before)) - len(after)
    if budget < len(before):
        raise ConfigError(
            f"data.max_length={data.max_length} has no room for one token per text beside the markup; "
            f"it must be at least {data.max_length - budget + len(before)}"
        )
    passes = layout.passes or (tuple(range(len(before))),)
    parts = _tokens_of([[record.texts[text] for text in chosen] for record in records for chosen in passes], readers)
    rows = [_row(part, before, after, budget, data.truncation) for part in parts]
    sizes = [[len(text) for text in part] for part in parts]
    labels = [record.label for record in records if record.label is not None]
    return Encoded(
        [record.id for record in records],
        [tokens for tokens, _ in rows],
        np.array([spans for _, spans in rows], dtype=np.int32).reshape(len(rows), len(before), 2),
        np.array(labels, dtype=np.float32).reshape(-1, num_classes) if len(labels) == len(records) else None,
        np.array([record.weight for record in records], dtype=np.float32),
        np.array(sizes, dtype=np.int32).reshape(len(rows), len(before)),
        passes=len(passes),
        groups=group_codes([record.group for record in records]),
    )


def encode_cached(
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", data: Data, layout: Layout, *, num_classes: int
) -> Encoded:
    """`encode`, cached on disk by the content of records, tokenizer, layout and lengths; raises the same errors.

    A damaged file is made again. A cache that cannot be written is logged and skipped.
    """
    key = _cache_key(records, tokenizer, data, layout, num_classes)
    file = paths.cache_dir() / "tokens" / f"{key}.npz"
    try:
        return load(file)
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        log.warning("%s is damaged; tokenising again", file)
    encoded = encode(records, tokenizer, data, layout, num_classes=num_classes)
    try:
        save(encoded, file)
    except OSError as error:
        log.warning("the tokens were not cached: %s", error)
    return encoded


def fair_shares(needs: Sequence[int], budget: int) -> list[int]:
    """How many tokens of the budget each text gets: the short ones all they need, the others equal shares.

    A remainder goes to the earlier texts. With a budget of at least a token per text, none that has
    tokens gets 0.
    """
    shares = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda text: needs[text])
    for place, text in enumerate(order):
        level, extra = divmod(budget, len(needs) - place)
        if needs[text] > level:
            for rank, long in enumerate(sorted(order[place:])):
                shares[long] = level + (rank < extra)
            break
        shares[text] = needs[text]
        budget -= needs[text]
    return shares


def _end(tokenizer: "PreTrainedTokenizerBase", layout: Layout) -> Tokens:
    if not layout.ends_with_eos:
        return np.zeros(0, dtype=np.int32)
    if tokenizer.eos_token_id is None:
        raise ModelError("model.path: its tokenizer has no end-of-sequence token; give a model whose tokenizer has one")
    return np.array([tokenizer.eos_token_id], dtype=np.int32)


def _tokens_of(parts: list[list[str]], readers: Sequence[TextReader]) -> list[list[Tokens]]:
    # A text has one reader at each place; places that read alike share theirs, and a text is read once by each.
    known: dict[TextReader, dict[str, Tokens]] = {}
    for reader in dict.fromkeys(readers):
        places = [place for place, one in enumerate(readers) if one is reader]
        known[reader] = _tokenised((part[place] for part in parts for place in places), reader)
    return [[known[reader][text] for reader, text in zip(readers, part, strict=True)] for part in parts]


def _tokenised(texts: Iterable[str], reader: TextReader) -> dict[str, Tokens]:
    distinct = list(dict.fromkeys(texts))
    found: dict[str, Tokens] = {}
    for start in range(0, len(distinct), _TEXTS_AT_ONCE):
        some = distinct[start : start + _TEXTS_AT_ONCE]
        rows = zip(some, reader.ids(some), strict=True)
        found |= {text: np.array(ids if text else [], dtype=np.int32) for text, ids in rows}
    return found


def _row(
    texts: list[Tokens], before: list[Tokens], after: Tokens, budget: int, side: Side
) -> tuple[Tokens, list[tuple[int, int]]]:
    parts: list[Tokens] = []
    spans: list[tuple[int, int]] = []
    length = 0
    for start, text, share in zip(before, texts, fair_shares([len(text) for text in texts], budget), strict=True):
        kept = _truncated(text, share, side)
        length += len(start)
        spans.append((length, length + len(kept)))
        length += len(kept)
        parts += [start, kept]
    return np.concatenate([*parts, after]), spans


def _truncated(tokens: Tokens, size: int, side: Side) -> Tokens:
    if len(tokens) <= size:
        return tokens
    match side:
        case Side.left:
            return tokens[len(tokens) - size :]
        case Side.right:
            return tokens[:size]
        case Side.middle:
            tail = size // 2
            return np.concatenate([tokens[: size - tail], tokens[len(tokens) - tail :]])


def _cache_key(
    records: Sequence[Record], tokenizer: "PreTrainedTokenizerBase", data: Data, layout: Layout, num_classes: int
) -> str:
    kind = [data.labelled is Labelled.nothing, data.overlap_tokens if data.labelled is Labelled.words else None]
    settings = [CACHE_VERSION, kind, data.max_length, data.truncation.value, dataclasses.asdict(layout), num_classes]
    digest = hashlib.sha256(json.dumps([settings, _tokenizer_meaning(tokenizer)], sort_keys=True).encode())
    for record in records:
        weight = [] if record.weight == 1 else [record.weight]
        digest.update(json.dumps([record.id, record.texts, record.label, record.group, *weight]).encode() + b"\n")
    return digest.hexdigest()


def _tokenizer_meaning(tokenizer: "PreTrainedTokenizerBase") -> object:
    if not tokenizer.is_fast:
        return [type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.eos_token_id]
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    # Both are left behind by the last call of the tokenizer and overruled by the next.
    marks = [tokenizer.eos_token_id, sorted(tokenizer.all_special_ids)]
    return [{**described, "padding": None, "truncation": None}, *marks]
