"""The answers of an unfinished prediction, in a folder beside its output. The same command continues from them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from danube_sweep.decoding import json_from
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.storage.checkpoint import load_tensors, save_tensors
from danube_sweep.storage.files import read_json, remove, whole_file, write_json
from danube_sweep.storage.ownership import Kind, is_our_name, remove_files, remove_temporaries, take_over

_WAY_OUT = "choose another place by -o"
_EXAMPLES, _ANSWERS, _DIGEST = "examples", "answers", "sha256"


@dataclass(frozen=True)
class Part:
    """The answers to successive rows of a file."""

    examples: list[str]
    answers_NA: torch.Tensor


class PredictionParts:
    """The parts of one prediction, by the pack that answers and the chunk of rows. A pack's chunks come in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def file(self) -> Path:
        return self.folder / "parts.json"

    def begin(self, key: str) -> bool:
        """Takes the folder for the prediction `key`; returns whether parts of it are there already.

        Parts of any other prediction are removed. Raises CheckpointError for a folder that is not ours, DiskError.
        """
        take_over(self.folder, Kind.prediction)
        stated = self._stated()
        if stated.get("key") == key:
            return True
        self._remove_parts()
        write_json(self.file, {"key": key})
        return False

    def choice(self) -> Mapping[str, Any] | None:
        """The choice that was made to meet a deadline; None without one."""
        found = self._stated().get("choice")
        return found if isinstance(found, dict) else None

    def choose(self, choice: Mapping[str, Any]) -> None:
        """Stores the choice. Raises DiskError."""
        write_json(self.file, {"key": self._stated().get("key"), "choice": dict(choice)})

    def stored(self, pack: int) -> Iterator[Part]:
        """The parts of a pack, in order, up to the first that is missing or damaged."""
        chunk = 0
        while (found := self._read(pack, chunk)) is not None:
            yield found
            chunk += 1

    def count(self, pack: int) -> int:
        """How many parts of a pack are there, in order."""
        return next(chunk for chunk in count() if not self._part(pack, chunk).is_file())

    def keep(self, pack: int, chunk: int, part: Part) -> None:
        """Writes a part, whole or not at all. Raises DiskError."""
        names = torch.frombuffer(bytearray(json.dumps(part.examples).encode()), dtype=torch.uint8)
        with whole_file(self._part(pack, chunk), _WAY_OUT) as temporary:
            save_tensors(
                {_EXAMPLES: names, _ANSWERS: part.answers_NA, _DIGEST: _digest(names, part.answers_NA)}, temporary
            )

    def give_up(self) -> bool:
        """Removes the folder if no part is in it; returns whether there are some."""
        if any(name.endswith(".safetensors") for name in os.listdir(self.folder)):
            return True
        self.finish()
        return False

    def finish(self) -> None:
        """Removes our files, and the folder if nothing else is in it."""
        self._remove_parts()
        with suppress(OSError):
            remove_files(self.folder, Kind.prediction)

    def _part(self, pack: int, chunk: int) -> Path:
        return self.folder / f"{pack:03d}-{chunk:06d}.safetensors"

    def _read(self, pack: int, chunk: int) -> Part | None:
        file = self._part(pack, chunk)
        if not file.is_file() or file.is_symlink():
            return None
        with suppress(CheckpointError, KeyError, ValueError):
            found = load_tensors(file)
            if not torch.equal(found[_DIGEST], _digest(found[_EXAMPLES], found[_ANSWERS])):
                return None  # a bit has changed on the disk: these rows are predicted again
            examples = json_from(bytes(found[_EXAMPLES].numpy()))
            if isinstance(examples, list) and len(examples) == len(found[_ANSWERS]):
                return Part([str(one) for one in examples], found[_ANSWERS])
        return None

    def _stated(self) -> dict[str, Any]:
        with suppress(CheckpointError):
            return read_json(self.file) if self.file.is_file() else {}
        return {}

    def _remove_parts(self) -> None:
        remove_temporaries(self.folder, Kind.prediction)  # of a killed process: the lock is ours
        for name in os.listdir(self.folder):
            if is_our_name(name, Kind.prediction) and name not in (".danube_sweep", ".lock"):
                remove(self.folder / name)


@contextmanager
def held_parts(target: Path) -> Iterator[PredictionParts]:
    """The parts of the prediction into `target`, for this process alone.

    Raises CheckpointError for a folder in their place that is not ours, ConfigError while another process predicts into
    the same file.
    """
    folder = target.with_name(f"{target.name}.parts")
    take_over(folder, Kind.prediction)
    lock = FileLock(folder / ".lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"-o {target}: another process predicts into it; wait for it, or {_WAY_OUT}") from None
    except (OSError, NotImplementedError):  # a file system without locks
        pass
    try:
        yield PredictionParts(folder)
    finally:
        lock.release()


def _digest(names: torch.Tensor, answers_NA: torch.Tensor) -> torch.Tensor:
    """SHA-256 of what a part holds, as bytes."""
    held = hashlib.sha256(names.numpy().tobytes() + answers_NA.contiguous().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(held.digest()), dtype=torch.uint8)
