"""The order of an epoch, and rows of tokens as padded tensors.

Axes: B rows, T tokens, K texts of a record, C classes, P words. Where a row has several passes, the first axis of ids,
mask, spans and sizes is theirs: all rows' first sequences, then all rows' second ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from danube_sweep.data.encoded import Encoded, Words

Rows = NDArray[np.int64]

_BLOCK_STEPS = 4
"""Steps of a bucketed block, whose rows are sorted by length together (docs/decisions/017)."""


LEAST_FILLED = 0.75
"""The shortest row of a batch of predictions over its longest: padding of short rows costs more than a batch more."""


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them."""

    input_ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    """True where there is a token."""
    spans_BK2: torch.Tensor
    """Token span [start, end) of each text."""
    sizes_BK: torch.Tensor
    """Tokens of each text before any was cut off."""
    labels_BC: torch.Tensor | None
    weights_B: torch.Tensor
    rows: Rows
    """Which rows of the encoded part these are."""
    tokens: int
    """Tokens without padding."""
    words_P3: torch.Tensor | None = None
    """Sequence, position and class (-1 where unlabelled) of every word that is classified, row by row."""
    even: bool = True
    """Whether a plain mean over its labelled rows or words is right: they all have the same weight."""

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            input_ids_BT=self.input_ids_BT.to(device),
            mask_BT=self.mask_BT.to(device),
            spans_BK2=self.spans_BK2.to(device),
            sizes_BK=self.sizes_BK.to(device),
            labels_BC=None if self.labels_BC is None else self.labels_BC.to(device),
            weights_B=self.weights_B.to(device),
            words_P3=None if self.words_P3 is None else self.words_P3.to(device),
        )


def epoch_steps(
    lengths: Rows, *, micro_batch: int, effective_batch: int, seed: int, epoch: int, bucketed: bool
) -> list[list[Rows]]:
    """The optimizer steps of an epoch, each a list of micro-batches of row indices; every row comes once.

    A function of `seed` and `epoch`. Which rows make a step is drawn, and does not depend on `micro_batch`; only the
    last step may be smaller. Within a step the longest rows come first, so that micro-batches hold rows of similar
    length. Bucketed steps are cut from blocks of a few steps' rows, sorted by length.
    """
    full, rest = epoch_order(lengths, effective_batch=effective_batch, seed=seed, epoch=epoch, bucketed=bucketed)
    steps = [*full, rest] if len(rest) else [*full]
    return [_cut(step, micro_batch) for step in steps]


def epoch_order(
    lengths: Rows, *, effective_batch: int, seed: int, epoch: int, bucketed: bool
) -> tuple[NDArray[np.int64], Rows]:
    """The rows of an epoch's full steps [steps, effective_batch] and those of its last, smaller one, longest first."""
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = random.permutation(len(lengths)).astype(np.int64)
    steps = len(order) // effective_batch
    drawn, rest = order[: steps * effective_batch], order[steps * effective_batch :]
    if bucketed:
        blocks = _cut(drawn, _BLOCK_STEPS * effective_batch)
        drawn = np.concatenate([drawn[:0], *(_longest_first(block, lengths) for block in blocks)])
    full = drawn.reshape(steps, effective_batch)
    if bucketed:
        full = full[random.permutation(steps)]
    ranks = np.argsort(-lengths[full], axis=1, kind="stable")
    return np.take_along_axis(full, ranks, axis=1), _longest_first(rest, lengths)


def forward_tokens(lengths: Rows, rows: Rows, *, flat: bool) -> int:
    """The tokens of a micro-batch's forward pass, padding included where rows are not laid flat."""
    return int(lengths[rows].sum() if flat else lengths[rows].max() * len(rows))


def eval_batches(lengths: Rows, batch: int) -> list[Rows]:
    """Every row once, sorted by length, longest first."""
    return _cut(_longest_first(np.arange(len(lengths), dtype=np.int64), lengths), batch)


def budget_batches(lengths: Rows, tokens: int) -> list[Rows]:
    """Every row once, sorted by length, longest first.

    With its padding a batch has at most so many tokens, or one row, and no row is shorter than `LEAST_FILLED` of the
    longest.
    """
    order = _longest_first(np.arange(len(lengths), dtype=np.int64), lengths)
    sorted_lengths, batches, start = lengths[order], [], 0
    while start < len(order):
        longest = max(1, int(sorted_lengths[start]))
        filled = int(np.searchsorted(-sorted_lengths, -LEAST_FILLED * longest, side="right"))
        end = min(start + max(1, tokens // longest), max(filled, start + 1))
        batches.append(order[start:end])
        start = end
    return batches


def collate(encoded: Encoded, rows: Rows, pad_id: int, side: str = "right") -> Batch:
    """The rows as tensors on the CPU, padded on the `side` given (left or right) to the longest of them."""
    sequences = np.concatenate([rows * encoded.passes + number for number in range(encoded.passes)])
    tokens = [encoded.tokens[sequence] for sequence in sequences]
    lengths_B = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    width = int(lengths_B.max())
    starts_B = width - lengths_B if side == "left" else np.zeros_like(lengths_B)
    places_T = np.arange(width)
    mask_BT = (places_T >= starts_B[:, None]) & (places_T < (starts_B + lengths_B)[:, None])
    ids_BT = np.full((len(tokens), width), pad_id, dtype=np.int64)
    ids_BT[mask_BT] = np.concatenate(tokens)
    weights_B = encoded.weights[rows]
    return Batch(
        torch.from_numpy(ids_BT),
        torch.from_numpy(mask_BT),
        torch.from_numpy(encoded.spans[sequences].astype(np.int64) + starts_B[:, None, None]),
        torch.from_numpy(encoded.sizes[sequences].astype(np.int64)),
        None if encoded.labels is None else torch.from_numpy(encoded.labels[rows]),
        torch.from_numpy(weights_B),
        rows,
        int(lengths_B.sum()),
        None if encoded.words is None else _words(encoded.words, rows, starts_B),
        encoded.labels is None or bool((weights_B == weights_B[:1]).all()),
    )


def _words(words: Sequence[Words], rows: Rows, starts_B: Rows) -> torch.Tensor:
    found = [
        np.stack([np.full(len(words[row]), place), words[row][:, 1] + starts_B[place], words[row][:, 2]], axis=1)
        for place, row in enumerate(rows)
    ]
    return torch.from_numpy(np.concatenate(found).astype(np.int64))


def _longest_first(rows: Rows, lengths: Rows) -> Rows:
    return rows[np.argsort(-lengths[rows], kind="stable")]


def _cut(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
