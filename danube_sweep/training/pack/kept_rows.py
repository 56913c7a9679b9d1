"""States that earlier runs kept, found row by row: predictions read them, and write none.

Axes: B rows, T tokens, H hidden width, V tokens of a file.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import final

import numpy as np
import torch

from danube_sweep.data.batches import Batch, Rows
from danube_sweep.data.encoded import Encoded
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES, weight_dtype
from danube_sweep.training.pack import stored_prefix

_HASH_BYTES = 32
_LENGTH_BYTES = 8


@final
class KeptRows:
    """The inputs of a block, or the final states after the last one, of every row that is kept for this backbone."""

    def __init__(self, backbone: Backbone, block: int) -> None:
        self._backbone = backbone
        self._states: list[torch.Tensor] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        """Of a sequence: which of `_states` [V, H] holds it, and from where on."""
        for file in sorted(stored_prefix.folder().glob(f"{stored_prefix.meaning(backbone, block)}-*.states")):
            with suppress(OSError):  # removed meanwhile: a cache may be cleared at any time
                self._take(file)

    def _take(self, file: Path) -> None:
        index = _index_of(file)
        if index is None:
            return
        digests, lengths = index
        width, dtype = self._backbone.hidden_size, DTYPES[self._backbone.precision.compute]
        count = int(lengths.sum()) * width
        if not stored_prefix.is_whole(file, count * dtype.itemsize):
            return
        states = stored_prefix.mapped(file, count, dtype)
        starts = (np.cumsum(lengths) - lengths).tolist()
        self._places.update({one: (len(self._states), start) for one, start in zip(digests, starts, strict=True)})
        self._states.append(states.view(-1, width))

    def divided(self, rows: Encoded) -> tuple[Rows, Rows]:
        """The rows whose states are all kept, and the others."""
        known = [digest in self._places for digest in stored_prefix.digests_of(rows.tokens)]
        there = np.array(known, dtype=np.bool_).reshape(-1, rows.passes).all(axis=1)
        return np.flatnonzero(there), np.flatnonzero(~there)

    def batch(self, batch: Batch) -> torch.Tensor:
        """The states [B, T, H] of a batch of rows that are kept, zero at padding, on the backbone's device."""
        ids_BT, mask_BT = batch.input_ids_BT.cpu().numpy(), batch.mask_BT.cpu().numpy()
        tokens = [row[mask] for row, mask in zip(ids_BT, mask_BT, strict=True)]
        states_BTH = self._states[0].new_zeros(*ids_BT.shape, self._backbone.hidden_size)
        for place, digest in enumerate(stored_prefix.digests_of(tokens)):
            number, start = self._places[digest]
            length = len(tokens[place])
            states_BTH[place, :length] = self._states[number][start : start + length]
        return states_BTH.to(self._backbone.device, weight_dtype(self._backbone.precision))


def _index_of(file: Path) -> tuple[list[bytes], Rows] | None:
    """The digests and lengths that `write_index` wrote; None where they are missing or damaged."""
    index = stored_prefix.index_of(file)
    if not index.is_file():
        return None
    content = index.read_bytes()
    body, size = content[:-_HASH_BYTES], stored_prefix.DIGEST_BYTES
    if hashlib.sha256(body).digest() != content[-_HASH_BYTES:]:
        return None
    count = len(body) // (size + _LENGTH_BYTES)
    digests = [body[start : start + size] for start in range(0, count * size, size)]
    return digests, np.frombuffer(body[count * size :], dtype=np.int64)
