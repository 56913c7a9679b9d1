"""The inputs of the first adapted block, kept on disk: later epochs and later sweeps never run the blocks below it.

One file per encoded part, in the compute type, its name the hash of everything that they follow from. An index beside
it names every sequence, so that predictions find the rows that they share with it.
Axes: B rows, T tokens, H hidden width, V tokens of a part.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
import transformers

from danube_sweep import paths
from danube_sweep.config.kept_digests import kept
from danube_sweep.data.batches import Batch, collate, eval_batches
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import DiskError
from danube_sweep.model.backbone import Backbone
from danube_sweep.model.precision import DTYPES, weight_dtype
from danube_sweep.storage.caches import alone
from danube_sweep.storage.files import content_hash, remove_abandoned, whole_file, write_text, writing
from danube_sweep.terminal.row_bar import RowCount
from danube_sweep.terminal.screen import LINE_EVERY_S, duration
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.pack.shared_prefix import SharedPrefix

log = logging.getLogger(__name__)

VERSION: Final = 3
BATCH_TOKENS: Final = 8192
"""Padded tokens of a forward pass while a file is written."""
WAY_OUT: Final = "give data.cache_prefix=false"
SUFFIX: Final = ".states"
DIGEST_BYTES: Final = 16
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
class _Told:
    """The lines about a file while it is written: when it begins, every ten seconds, when it is whole."""

    def __init__(self, say: Callable[[str], None], rows: int, states_VH: torch.Tensor) -> None:
        self._say, self._counted, self._due_s = say, RowCount(rows, time.monotonic), LINE_EVERY_S
        gib = states_VH.nbytes / 2**30
        say(f"data.cache_prefix: the states below the adapted blocks of {rows} rows are computed once ({gib:.2g} GiB)")

    def add(self, rows: int) -> None:
        said, counted = self._counted.advance(rows), self._counted
        if counted.elapsed_s >= self._due_s and counted.done < counted.total:
            self._due_s = counted.elapsed_s + LINE_EVERY_S
            self._say(f"data.cache_prefix: {said}")

    def end(self) -> None:
        took = duration(self._counted.elapsed_s)
        self._say(f"data.cache_prefix: the states of {self._counted.total} rows are kept, after {took}")


@final
class StoredStates:
    """The files of one backbone, written when they are first asked for."""

    def __init__(self, backbone: Backbone, prefix: SharedPrefix) -> None:
        self._backbone, self._prefix = backbone, prefix
        self._kept: dict[tuple[int, int], Kept | None] = {}
        self.alive: Callable[[], None] = lambda: None
        """Called after every batch while a file is written."""
        self.say: Callable[[str], None] = lambda _line: None
        """Takes the lines that tell how far a file is."""
        self.seconds = 0.0
        """Spent on files so far: writing them, or checking those that are there."""

    def open(self, rows: Encoded, block: int) -> Kept | None:
        """The states of these rows, written first where they are not there; None where they cannot be kept."""
        key = (id(rows), block)
        if key not in self._kept:
            start = time.monotonic()
            self._kept[key] = self._open(rows, block)
            self.seconds += time.monotonic() - start
        return self._kept[key]

    def batch(self, rows: Encoded, batch: Batch, block: int) -> torch.Tensor:
        """The inputs [B, T, H] of a block for a batch of these rows, zero at padding.

        If they cannot be kept, they are computed for each batch, and the log has a line on that.
        """
        kept = self.open(rows, block)
        if kept is None:
            return self._computed(batch, block)
        sequences = _sequences(rows, batch.rows)
        lengths = np.array([len(rows.tokens[sequence]) for sequence in sequences])
        states_BTH = laid_out(kept.states_VH, kept.starts[sequences], lengths, batch.input_ids_BT.shape[1])
        return states_BTH.to(self._backbone.device, weight_dtype(self._backbone.precision))

    def _computed(self, batch: Batch, block: int) -> torch.Tensor:
        there = batch.to(self._backbone.device)
        with evaluating(self._backbone):
            found_BTH = self._prefix.states_before(there.input_ids_BT, there.mask_BT, block)
        found_BTH = found_BTH.to(DTYPES[self._backbone.precision.compute])
        zero = found_BTH.new_zeros(())
        return torch.where(there.mask_BT.bool()[..., None], found_BTH, zero).to(weight_dtype(self._backbone.precision))

    def _open(self, rows: Encoded, block: int) -> Kept | None:
        lengths = np.array([len(sequence) for sequence in rows.tokens], dtype=np.int64)
        file = folder() / self._name(rows, lengths, block)
        shape = int(lengths.sum()), self._backbone.hidden_size
        dtype = DTYPES[self._backbone.precision.compute]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        size = shape[0] * shape[1] * dtype.itemsize
        try:
            with alone(file), writing(file, WAY_OUT):
                if not is_whole(file, size):
                    _check_room(file, size)
                    self._write(file, rows, starts, shape, dtype, block)
                elif not index_of(file).is_file():
                    write_index(file, rows)
            states = mapped(file, shape[0] * shape[1], dtype)
        except DiskError as error:
            log.warning("the states below the adapted blocks are not kept but computed in every step: %s", error)
            return None
        return Kept(rows, states.view(shape), starts)

    def _name(self, rows: Encoded, lengths: np.ndarray, block: int) -> str:
        digest = hashlib.sha256(lengths.tobytes())
        digest.update(np.concatenate(rows.tokens).tobytes())
        return f"{meaning(self._backbone, block)}-{digest.hexdigest()[:24]}{SUFFIX}"

    def _write(
        self, file: Path, rows: Encoded, starts: np.ndarray, shape: tuple[int, int], dtype: torch.dtype, block: int
    ) -> None:
        remove_abandoned(file)  # the lock is ours
        with whole_file(file, WAY_OUT) as temporary:
            with temporary.open("wb") as stream:  # a full disk shows here, and not as a fault in the mapped memory
                os.posix_fallocate(stream.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)
            states_VH = torch.from_file(str(temporary), shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
            told = _Told(self.say, len(rows.ids), states_VH)
            at_once = max(1, BATCH_TOKENS // int(rows.lengths.max()))
            with evaluating(self._backbone):
                for chosen in eval_batches(rows.lengths, at_once):
                    self._fill(states_VH, rows, starts, chosen, block)
                    self.alive()
                    told.add(len(chosen))
            del states_VH
        write_text(seal_of(file), content_hash(file))
        write_index(file, rows)
        told.end()

    def _fill(self, states_VH: torch.Tensor, rows: Encoded, starts: np.ndarray, chosen: np.ndarray, block: int) -> None:
        batch = collate(rows, chosen, 0).to(self._backbone.device)
        found_BTH = self._prefix.states_before(batch.input_ids_BT, batch.mask_BT, block).to(states_VH.dtype).cpu()
        for place, sequence in enumerate(_sequences(rows, chosen)):
            length = len(rows.tokens[sequence])
            states_VH[starts[sequence] : starts[sequence] + length] = found_BTH[place, :length]


def folder() -> Path:
    """Where the files are."""
    return paths.cache_dir() / "prefix"


def mapped(file: Path, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The file's elements, mapped into memory. Raises DiskError for a file that has gone."""
    try:
        return torch.from_file(str(file), shared=False, size=size, dtype=dtype)
    except RuntimeError as error:
        if file.is_file():
            raise
        raise DiskError(f"{file} was removed while it was read; a cache that is in use has to stay") from error


def meaning(backbone: Backbone, block: int) -> str:
    """A hash of all that decides the states of a block, except the tokens. A file's name begins with it."""
    precision = {key: str(value) for key, value in asdict(backbone.precision).items()}
    del precision["gradient_checkpointing"]
    made_by = [torch.__version__, transformers.__version__, backbone.device.type, backbone.flat]
    described = json.dumps([VERSION, backbone.fingerprint, precision, block, made_by], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:24]


def laid_out(states_VH: torch.Tensor, starts: np.ndarray, lengths: np.ndarray, width: int) -> torch.Tensor:
    """The states of sequences that start there and are so long, as [B, T, H] of a width, zero at padding."""
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    mask_BT = torch.from_numpy(np.arange(width) < lengths[:, None])
    states_BTH = states_VH.new_zeros(*mask_BT.shape, states_VH.shape[1])
    states_BTH[mask_BT] = states_VH[torch.from_numpy(places)]
    return states_BTH


def index_of(file: Path) -> Path:
    """The file that names its sequences."""
    return file.with_suffix(".rows")


def digests_of(sequences: Sequence[np.ndarray]) -> list[bytes]:
    """A name for each sequence of tokens."""
    return [hashlib.blake2b(one.astype(np.int32).tobytes(), digest_size=DIGEST_BYTES).digest() for one in sequences]


def write_index(file: Path, rows: Encoded) -> None:
    """Writes the index: a digest and a length (int64) for each sequence, and the SHA-256 of both at the end."""
    lengths = np.array([len(sequence) for sequence in rows.tokens], dtype=np.int64)
    content = b"".join(digests_of(rows.tokens)) + lengths.tobytes()
    with whole_file(index_of(file), WAY_OUT) as temporary:
        temporary.write_bytes(content + hashlib.sha256(content).digest())


def _sequences(rows: Encoded, chosen: np.ndarray) -> np.ndarray:
    # In a batch: all rows' first sequences, then all rows' second ones.
    return np.concatenate([chosen * rows.passes + number for number in range(rows.passes)])


def seal_of(file: Path) -> Path:
    """The file that holds its hash."""
    return file.with_suffix(".sha256")


def is_whole(file: Path, size: int) -> bool:
    """Whether a file of states is there as it was written; one that is not is noted."""
    if not file.is_file():
        return False
    with suppress(OSError, UnicodeError):
        sealed = seal_of(file).read_text(encoding="utf-8")
        # A file is read once a machine for it, until it changes.
        if file.stat().st_size == size and sealed == kept(file, "sha256", lambda: content_hash(file)):
            return True
    log.warning("%s is damaged; its states are computed again", file)
    return False


def _check_room(file: Path, size: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if free < size * ROOM:
        raise DiskError(
            f"data.cache_prefix=true needs {size / 2**30:.2f} GiB in {file.parent}, which has {free / 2**30:.2f} free; "
            f"give it room, or name another folder in DANUBE_SWEEP_CACHE"
        )
