"""Texts as sparse numbers: which words are in them, and how long they are.

Axes: N rows, F features.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from danube_sweep.storage.predictions import Floats

MOST_WORDS = 50_000
_FEW_TEXTS = 500
"""With fewer texts, words and word pairs that occur once count too."""

Texts = Sequence[tuple[str, ...]]
"""Each row's texts: (text,) or (prompt, answer A, answer B)."""


@final
class Features:
    """Features of rows as the training rows define them: [N, F], sparse."""

    def __init__(self, train: Texts, *, words: bool) -> None:
        self._scaler = StandardScaler().fit(_lengths(train))
        self._words = _vocabulary(train) if words else None

    def __call__(self, texts: Texts) -> Any:
        """[N, F]: log lengths in units of their spread, and TF-IDF, for two answers that of B minus that of A."""
        lengths = sparse.csr_matrix(self._scaler.transform(_lengths(texts)))
        if self._words is None:
            return lengths
        last = self._words.transform([row[-1] for row in texts])
        first = self._words.transform([row[1] for row in texts]) if _compares(texts) else None
        return sparse.hstack([lengths, last if first is None else last - first], format="csr")


def _compares(texts: Texts) -> bool:
    return len(texts[0]) == 3


def _vocabulary(train: Texts) -> TfidfVectorizer | None:
    read = [text for row in train for text in (row[1:] if _compares(train) else row)]
    words = TfidfVectorizer(
        ngram_range=(1, 2),
        min_df=1 if len(read) < _FEW_TEXTS else 2,
        max_features=MOST_WORDS,
        sublinear_tf=True,
        token_pattern=r"(?u)\b\w+\b",
    )
    try:
        return words.fit(read)
    except ValueError:  # there is no word in them
        return None


def _lengths(texts: Texts) -> Floats:
    counts_NK = np.array([[len(text) for text in row] for row in texts], dtype=np.float64)
    logs_NK = np.log1p(counts_NK)
    if not _compares(texts):
        words_N1 = np.log1p(np.array([[len(row[0].split())] for row in texts], dtype=np.float64))
        return np.concatenate([logs_NK, words_N1], axis=1)
    longer_N1 = (logs_NK[:, 2] - logs_NK[:, 1])[:, None]
    return np.concatenate([logs_NK, longer_N1, np.abs(longer_N1)], axis=1)
