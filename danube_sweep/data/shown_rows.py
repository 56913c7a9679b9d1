"""Rows as the model reads them: text with its markup, tokens, where something was cut, and the label."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from danube_sweep.config.schema import Side, Target
from danube_sweep.data.encoded import Encoded, Tokens
from danube_sweep.data.records import OUTSIDE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def rows_to_show(encoded: Encoded, count: int) -> list[int]:
    """The first rows; of several the last is the one that is longest before any cut."""
    if count < 2 or len(encoded.ids) <= count:
        return list(range(min(count, len(encoded.ids))))
    lost = (encoded.sizes - (encoded.spans[:, :, 1] - encoded.spans[:, :, 0])).sum(axis=1)
    whole = np.array([len(tokens) for tokens in encoded.tokens]) + lost
    longest = int(np.argmax(whole.reshape(-1, encoded.passes).max(axis=1)))
    return list(range(count)) if longest < count else [*range(count - 1), longest]


def row_lines(
    encoded: Encoded,
    row: int,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    classes: Sequence[str],
    target: Target,
    side: Side,
) -> list[str]:
    """A row in lines: its number, id and label, then the text of each of its sequences, indented."""
    lines = [f"row {row + 1}, id {encoded.ids[row]}, {_label(encoded, row, tokenizer, classes, target)}"]
    for number in range(encoded.passes):
        sequence = row * encoded.passes + number
        tokens = encoded.tokens[sequence]
        cuts = _cuts(encoded, sequence, side)
        lost = f", {sum(cuts.values()):,} more cut" if cuts else ""
        name = f"sequence {number + 1} of {encoded.passes}: " if encoded.passes > 1 else ""
        lines.append(f"  {name}{len(tokens):,} token{'s' * (len(tokens) != 1)}{lost}")
        lines += [f"    {line}".rstrip() for line in _marked(tokens, cuts, tokenizer).split("\n")]
    return lines


def _cuts(encoded: Encoded, sequence: int, side: Side) -> dict[int, int]:
    """The tokens that are missing, by the place in the sequence where they are."""
    cuts: dict[int, int] = {}
    for (start, end), size in zip(encoded.spans[sequence].tolist(), encoded.sizes[sequence].tolist(), strict=True):
        kept = end - start
        if size > kept:
            place = {Side.left: start, Side.right: end, Side.middle: end - kept // 2}[side]
            cuts[place] = size - kept
    return cuts


def _marked(tokens: Tokens, cuts: dict[int, int], tokenizer: "PreTrainedTokenizerBase") -> str:
    text = _text(tokens, tokenizer)
    for place in sorted(cuts, reverse=True):
        at = _common(text, _text(tokens[:place], tokenizer))
        text = f"{text[:at]}[... {cuts[place]:,} token{'s' * (cuts[place] != 1)} cut ...]{text[at:]}"
    return text


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike: half a character may end a part of the tokens."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _text(tokens: Tokens, tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(tokens.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _label(
    encoded: Encoded, row: int, tokenizer: "PreTrainedTokenizerBase", classes: Sequence[str], target: Target
) -> str:
    if encoded.words is not None:
        return _word_labels(encoded, row, tokenizer, classes)
    if encoded.labels is None:
        return "learned: each next token"
    label = encoded.labels[row].tolist()
    if target is Target.number:
        return f"label {label[0]:.6g}"
    held = [name for name, share in zip(classes, label, strict=True) if share == 1]
    if target is Target.many and all(share in (0, 1) for share in label):
        return f"labels {', '.join(held) or 'none'}"
    if len(held) == 1:
        return f"label {held[0]}"
    return "label " + ", ".join(f"{name} {share:.3g}" for name, share in zip(classes, label, strict=True))


def _word_labels(encoded: Encoded, row: int, tokenizer: "PreTrainedTokenizerBase", classes: Sequence[str]) -> str:
    """The words with a label other than O, with it; a word is made of the tokens since the last word's end."""
    assert encoded.words is not None
    words = encoded.words[row]
    first, named = 0, []
    for number, place, kind in words.tolist():
        if first == 0 and number > 0:  # a later piece: its first word follows the repeated ones
            first = place
        tokens = encoded.tokens[row][first : place + 1]
        text = str(tokenizer.decode(tokens.tolist(), skip_special_tokens=True)).strip()
        first = place + 1
        if kind >= 0 and classes[kind] != OUTSIDE:
            named.append(f"{text} {classes[kind]}")
    rest = len(words) - len(named)
    outside = f"{rest:,} of {len(words):,} words {OUTSIDE}" if rest else f"{len(words):,} words"
    return f"labels: {', '.join([*named, outside])}"
