"""The identity of a folder of weights: every byte of every tensor, in whichever files."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

from danube_sweep.config.kept_digests import kept
from danube_sweep.config.model_folder import architecture_keys, weight_files
from danube_sweep.decoding import json_from
from danube_sweep.errors import ModelError

RULE: Final = "tensors-1"
THREADS: Final = 4
CHUNK_BYTES: Final = 2**22
MOST_HEADER_BYTES: Final = 10**8
"""The format's own limit."""
NO_MEANING: Final = {"dtype", "torch_dtype"}
"""Keys of config.json that the tensors state themselves: we load in a type of our own."""

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], object]]]
"""Takes a title and the number of bytes, and returns the callback for finished bytes."""

_BAR: ContextVar[Bar] = ContextVar("bar", default=lambda _title, _total: nullcontext(lambda _done: None))


@contextmanager
def shown_by(bar: Bar) -> Iterator[None]:
    """In the block, the hashing of a file is shown by `bar`."""
    token = _BAR.set(bar)
    try:
        yield
    finally:
        _BAR.reset(token)


def weights_identity(folder: Path) -> str:
    """32 hex digits over the tensors (name, type, shape, bytes) and the architecture keys of config.json.

    Shards, their names, their order and the metadata of their headers do not count. Raises ModelError for weights
    that are missing, damaged or no safetensors.
    """
    tensors: dict[str, list[Any]] = {}
    for file in weight_files(folder):
        for name, described in _tensors_of(file).items():
            if name in tensors:
                raise ModelError(f"model.path={folder}: the tensor {name} is in several files; give a complete copy")
            tensors[name] = described
    keys = {key: value for key, value in architecture_keys(folder).items() if key not in NO_MEANING}
    if keys.get("tie_word_embeddings"):
        _drop_tied_copy(tensors)
    text = json.dumps([keys, sorted(tensors.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _drop_tied_copy(tensors: dict[str, list[Any]]) -> None:
    # Some files hold the output layer of a tied model a second time.
    copy = tensors.get("lm_head.weight")
    if any(name.endswith("embed_tokens.weight") and described == copy for name, described in tensors.items()):
        del tensors["lm_head.weight"]


def _tensors_of(file: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = kept(file, RULE, partial(_hashed, file))
    return found


def _hashed(file: Path) -> dict[str, list[Any]]:
    """Name -> type, shape and SHA-256 of the bytes."""
    header, start = _header(file)
    with _BAR.get()(f"hashing {file.name}", file.stat().st_size) as done, ThreadPoolExecutor(THREADS) as pool:

        def one(name: str) -> list[Any]:
            described = header[name]
            first, last = described["data_offsets"]
            return [described["dtype"], described["shape"], _digest(file, start + first, last - first, done)]

        return dict(zip(header, pool.map(one, header), strict=True))


def _digest(file: Path, start: int, size: int, done: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(start)
        while size > 0:
            chunk = stream.read(min(size, CHUNK_BYTES))
            if not chunk:
                raise _damaged(file)
            digest.update(chunk)
            size -= len(chunk)
            done(len(chunk))
    return digest.hexdigest()


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The tensors that the file's header describes, and where their bytes begin."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > MOST_HEADER_BYTES:
                raise ValueError("a header of more than 100 MB")
            header = {name: one for name, one in json_from(stream.read(length)).items() if name != "__metadata__"}
        ends = [_end(described) for described in header.values()]
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise _damaged(file) from error
    if not ends or file.stat().st_size != 8 + length + max(ends):
        raise _damaged(file)
    return header, 8 + length


def _end(described: dict[str, Any]) -> int:
    first, last = described["data_offsets"]
    if not (isinstance(described["dtype"], str) and isinstance(described["shape"], list) and 0 <= first <= last):
        raise ValueError("no tensor")
    return int(last)


def _damaged(file: Path) -> ModelError:
    return ModelError(
        f"model.path={file.parent}: the file {file.name} is cut short or no safetensors; download or save it again"
    )
