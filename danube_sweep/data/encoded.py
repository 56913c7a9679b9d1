"""Rows of tokens, in memory and in a file."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danube_sweep.storage.files import content_hash, whole_file

_SEAL_BYTES = 32
"""The SHA-256 of the rest, at the end of the file."""

Tokens = NDArray[np.int32]
Words = NDArray[np.int32]
"""[w, 3]: number in its text, position in its sequence, class (-1 where unlabelled)."""


@dataclass(frozen=True)
class Truth:
    """The correct answers of n examples."""

    labels: NDArray[np.float32]
    """[n, classes], [n, 1] for numbers and for words' classes, [n, 0] in language modelling."""
    weights: NDArray[np.float32]
    """[n]: weight of an example in the mean loss."""
    starts: NDArray[np.bool_] | None = None
    """[n]: of words, whether one is the first of its text."""


@dataclass(frozen=True)
class Encoded:
    """n rows of k texts each; a row is one sequence, or `passes` of them: s = n x passes sequences, row by row."""

    ids: list[str]
    tokens: list[Tokens]
    """[s]"""
    spans: NDArray[np.int32]
    """[s, k, 2]: token span [start, end) of every text in its sequence; start = end for an empty text."""
    labels: NDArray[np.float32] | None
    """[n, classes], or [n, 1] for numbers; None for words and in language modelling."""
    weights: NDArray[np.float32]
    """[n]: weight of a row in the loss: its own (1, but for extra rows), or its number of words or predicted tokens."""
    sizes: NDArray[np.int32]
    """[s, k]: tokens of every text before any was cut off."""
    words: list[Words] | None = None
    """[n]: the words of each row that are classified in it."""
    passes: int = 1
    groups: NDArray[np.int64] | None = None
    """[n]: a code of each row's group (prompt, text, document); None where every row is its own."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n]: the tokens of a row's longest sequence."""
        lengths = np.array([len(sequence) for sequence in self.tokens], dtype=np.int64)
        return np.asarray(lengths.reshape(-1, self.passes).max(axis=1) if len(lengths) else lengths)

    def tokens_of(self, rows: NDArray[np.int64]) -> int:
        """The tokens of these rows."""
        return sum(len(self.tokens[row * self.passes + number]) for row in rows for number in range(self.passes))

    @property
    def examples(self) -> list[str]:
        """The ids of the predictions: the rows', or <text>:<word> for every word."""
        if self.words is None:
            return self.ids
        texts = [name.rpartition(":")[0] for name in self.ids]
        return [f"{text}:{number}" for text, words in zip(texts, self.words, strict=True) for number in words[:, 0]]

    @property
    def example_groups(self) -> NDArray[np.int64] | None:
        """The group of each example, in the order of `examples`."""
        if self.words is None or self.groups is None:
            return self.groups
        return np.repeat(self.groups, [len(words) for words in self.words])

    @property
    def truth(self) -> Truth:
        """Of its examples, in their order."""
        if self.words is not None:
            words = np.concatenate(self.words)
            return Truth(words[:, 2:].astype(np.float32), np.ones(len(words), dtype=np.float32), words[:, 0] == 0)
        none = np.zeros((len(self.ids), 0), dtype=np.float32)
        return Truth(none if self.labels is None else self.labels, self.weights)

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of these rows' examples in `examples`."""
        if self.words is None:
            return rows
        counts = np.array([len(words) for words in self.words])
        firsts = np.cumsum(counts) - counts
        return np.concatenate([np.arange(firsts[row], firsts[row] + counts[row]) for row in rows])


def save(encoded: Encoded, file: Path) -> None:
    """Writes rows, whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "ids": np.frombuffer(json.dumps(encoded.ids).encode(), dtype=np.uint8),
        "tokens": np.concatenate([np.zeros(0, dtype=np.int32), *encoded.tokens]),
        "lengths": np.array([len(sequence) for sequence in encoded.tokens], dtype=np.int64),
        "spans": encoded.spans,
        "weights": encoded.weights,
        "sizes": encoded.sizes,
        "passes": np.array(encoded.passes),
    }
    if encoded.labels is not None:
        arrays["labels"] = encoded.labels
    if encoded.groups is not None:
        arrays["groups"] = encoded.groups
    if encoded.words is not None:
        arrays["words"] = np.concatenate([np.zeros((0, 3), dtype=np.int32), *encoded.words])
        arrays["counts"] = np.array([len(words) for words in encoded.words], dtype=np.int64)
    with whole_file(file) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        seal = bytes.fromhex(content_hash(temporary))
        with temporary.open("ab") as stream:
            stream.write(seal)


def load(file: Path) -> Encoded:
    """The rows that `save` wrote. Raises OSError, and ValueError for a damaged file."""
    content = memoryview(file.read_bytes())
    if hashlib.sha256(content[:-_SEAL_BYTES]).digest() != content[-_SEAL_BYTES:]:
        raise ValueError(f"{file} was changed since it was saved")
    with np.load(io.BytesIO(content[:-_SEAL_BYTES]), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return Encoded(
        json.loads(arrays["ids"].tobytes()),
        _cut(arrays["tokens"], arrays["lengths"]),
        arrays["spans"],
        arrays.get("labels"),
        arrays["weights"],
        arrays["sizes"],
        _cut(arrays["words"], arrays["counts"]) if "words" in arrays else None,
        int(arrays["passes"]),
        arrays.get("groups"),
    )


def _cut(values: NDArray[np.int32], lengths: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    return np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
