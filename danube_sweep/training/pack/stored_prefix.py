"""The inputs of the first adapted block, kept on disk: later epochs and later sweeps never run the blocks below it.

One file per encoded part, in the compute type, its name the hash of everything that they follow from.
Axes: B rows, T tokens, H hidden width, V tokens of a part.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
import transformers
from filelock import FileLock

from danube_sweep import paths
from danube_sweep.data.batches import Batch, collate, eval_batches
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import ConfigError
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES, weight_dtype
from danube_sweep.storage.files import remove_abandoned, whole_file, writing
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.pack.shared_prefix import SharedPrefix

VERSION: Final = 1
BATCH_TOKENS: Final = 8192
"""Padded tokens of a forward pass while a file is written."""
WAY_OUT: Final = "give data.cache_prefix=false"
ROOM: Final = 1.05
"""Free space wanted, in sizes of the file."""


@dataclass(frozen=True)
class Kept:
    """The states of one part, mapped into memory."""

    rows: Encoded
    states_VH: torch.Tensor
    starts: np.ndarray
    """Of every sequence in V."""


@final
class StoredStates:
    """The files of one backbone, written when they are first asked for."""

    def __init__(self, backbone: Backbone, prefix: SharedPrefix) -> None:
        self._backbone, self._prefix = backbone, prefix
        self._kept: dict[tuple[int, int], Kept] = {}
        self.alive: Callable[[], None] = lambda: None
        """Called after every batch while a file is written."""

    def batch(self, rows: Encoded, batch: Batch, block: int) -> torch.Tensor:
        """The inputs [B, T, H] of a block for a batch of these rows, zero at padding.

        Raises ConfigError when the file would not fit the disk, DiskError when it cannot be written.
        """
        key = (id(rows), block)
        if key not in self._kept:
            self._kept[key] = self._open(rows, block)
        kept = self._kept[key]
        states_BTH = kept.states_VH.new_zeros(*batch.input_ids_BT.shape, kept.states_VH.shape[1])
        for place, sequence in enumerate(_sequences(rows, batch.rows)):
            start, length = kept.starts[sequence], len(rows.tokens[sequence])
            states_BTH[place, :length] = kept.states_VH[start : start + length]
        return states_BTH.to(self._backbone.device, weight_dtype(self._backbone.precision))

    def _open(self, rows: Encoded, block: int) -> Kept:
        lengths = np.array([len(sequence) for sequence in rows.tokens], dtype=np.int64)
        file = paths.cache_dir() / "prefix" / f"{self._name(rows, lengths, block)}.states"
        shape = int(lengths.sum()), self._backbone.hidden_size
        dtype = DTYPES[self._backbone.precision.compute]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        size = shape[0] * shape[1] * dtype.itemsize
        with writing(file, WAY_OUT):
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock"), fallback_to_soft=False):
                if not file.is_file() or file.stat().st_size != size:
                    _check_room(file, size)
                    self._write(file, rows, starts, shape, dtype, block)
        states = torch.from_file(str(file), shared=False, size=shape[0] * shape[1], dtype=dtype)
        return Kept(rows, states.view(shape), starts)

    def _name(self, rows: Encoded, lengths: np.ndarray, block: int) -> str:
        precision = {key: str(value) for key, value in asdict(self._backbone.precision).items()}
        del precision["gradient_checkpointing"]
        made_by = [torch.__version__, transformers.__version__, self._backbone.device.type, self._backbone.flat]
        meaning = [VERSION, self._backbone.fingerprint, precision, block, made_by]
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
        digest.update(lengths.tobytes())
        digest.update(np.concatenate(rows.tokens).tobytes())
        return digest.hexdigest()[:32]

    def _write(
        self, file: Path, rows: Encoded, starts: np.ndarray, shape: tuple[int, int], dtype: torch.dtype, block: int
    ) -> None:
        remove_abandoned(file)  # the lock is ours
        with whole_file(file, WAY_OUT) as temporary:
            with temporary.open("wb") as stream:  # a full disk shows here, and not as a fault in the mapped memory
                os.posix_fallocate(stream.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
            states_VH = torch.from_file(str(temporary), shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
            at_once = max(1, BATCH_TOKENS // int(rows.lengths.max()))
            with evaluating(self._backbone):
                for chosen in eval_batches(rows.lengths, at_once):
                    self._fill(states_VH, rows, starts, chosen, block)
                    self.alive()
            del states_VH

    def _fill(self, states_VH: torch.Tensor, rows: Encoded, starts: np.ndarray, chosen: np.ndarray, block: int) -> None:
        batch = collate(rows, chosen, 0).to(self._backbone.device)
        found_BTH = self._prefix.states_before(batch.input_ids_BT, batch.mask_BT, block).to(states_VH.dtype).cpu()
        for place, sequence in enumerate(_sequences(rows, chosen)):
            length = len(rows.tokens[sequence])
            states_VH[starts[sequence] : starts[sequence] + length] = found_BTH[place, :length]


def _sequences(rows: Encoded, chosen: np.ndarray) -> np.ndarray:
    # In a batch: all rows' first sequences, then all rows' second ones.
    return np.concatenate([chosen * rows.passes + number for number in range(rows.passes)])


def _check_room(file: Path, size: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if free < size * ROOM:
        raise ConfigError(
            f"data.cache_prefix=true needs {size / 2**30:.2f} GiB in {file.parent}, which has {free / 2**30:.2f} free; "
            f"give it room, name another folder in DANUBE_SWEEP_CACHE, or give false"
        )
