"""Published results of the models, for comparison, never for the ranking."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Published:
    """Tables of published figures, each with where it is from."""

    models: list[str]
    """Which of the sweep's models they are of."""
    tables: list["Table"]


@dataclass(frozen=True)
class Table:
    """Figures by benchmark and model."""

    title: str
    note: str
    models: list[str]
    rows: list[tuple[str, list[str]]]


_NAMES: Final = {
    "Danube3-4b": r"danube3(\.1)?-4b",
    "Danube2-1.8b": r"danube2-1[.-]8b",
    "Danube3-500m": r"danube3-500m",
    "Phi-3-mini-4k": r"phi-?3-mini-4k",
    "Gemma-7B": r"(^|/)gemma-7b",
    "Mistral-7B-Instruct-v0.2": r"mistral-7b-instruct-v0\.2",
    "Qwen2-0.5B": r"qwen2-0\.5b",
}
"""What a model's path holds, in lower case with hyphens."""

_LEADERBOARD: Final = Table(
    "Published: leaderboard figures of the chat models",
    "The H2O Danube post. It calls HellaSwag and ARC 5-shot, the model card 10- and 25-shot. Other tasks, other "
    "prompts and no fine-tuning: not comparable with this sweep's numbers.",
    ["Danube3-4b", "Danube2-1.8b", "Phi-3-mini-4k", "Gemma-7B", "Mistral-7B-Instruct-v0.2"],
    [
        ("MMLU (5)", ["54.74", "37.77", "69.08", "64.56", "60.78"]),
        ("HellaSwag (10)", ["80.36", "73.54", "80.60", "82.20", "84.88"]),
        ("ARC-Challenge (25)", ["58.96", "43.43", "62.97", "61.09", "63.14"]),
        ("TruthfulQA (0)", ["47.79", "39.96", "59.88", "44.79", "68.26"]),
        ("WinoGrande (5)", ["76.48", "69.77", "71.60", "79.01", "77.19"]),
        ("GSM8K (5)", ["50.18", "26.16", "85.70", "50.87", "40.03"]),
        ("mean of the column", ["61.42", "48.44", "71.64", "63.75", "65.71"]),
    ],
)

_SMALL: Final = Table(
    "Published: leaderboard figures of the half-billion models",
    "arXiv:2407.09276, chat and instruct models. Not comparable with this sweep's numbers.",
    ["Danube3-500m", "Qwen2-0.5B"],
    [
        ("ARC-Challenge (25)", ["39.25", "32.00"]),
        ("HellaSwag (10)", ["61.02", "49.11"]),
        ("MMLU (5)", ["26.33", "43.88"]),
        ("TruthfulQA (0)", ["39.96", "39.28"]),
        ("WinoGrande (5)", ["61.72", "56.99"]),
        ("GSM8K (5)", ["16.00", "34.12"]),
    ],
)

_CLASSIFIERS: Final = Table(
    "Published: accuracy as fine-tuned text classifiers",
    "arXiv:2407.09276, table 6: LoRA r 16, alpha 32, batch 1, one epoch, lr 1e-4, max_length 8192; precision, "
    "targets and seeds are not stated. Comparable only on the same data and split.",
    ["Danube2-1.8b", "Danube3-500m", "Danube3-4b", "Qwen2-0.5B"],
    [
        ("Arxiv (11 classes)", [".864", ".863", ".873", ".874"]),
        ("Imdb (2 classes)", [".968", ".959", ".971", ".959"]),
        ("Patent (9 classes)", [".721", ".708", ".727", ".707"]),
        ("Scientific (10 classes)", [".868", ".846", ".872", ".855"]),
    ],
)


def published_of(paths: Sequence[str]) -> Published | None:
    """The figures of the models at these paths or hub names; None if there are none."""
    spelled = [_spelled(path) for path in paths]
    models = [name for name, form in _NAMES.items() if any(re.search(form, path) for path in spelled)]
    tables = [table for table in (_LEADERBOARD, _SMALL, _CLASSIFIERS) if set(table.models) & set(models)]
    return Published(models, tables) if models else None


def _spelled(path: str) -> str:
    return re.sub(r"[_\s]", "-", path.lower())


def published_score(path: str, label: str) -> str | None:
    """The published figure of one model in one row, in per cent; None where there is none.

    The figures are of the chat models: a base model has none.
    """
    found = published_of([path])
    if found is None or re.search(r"\bbase\b", _spelled(path)):
        return None
    for table in found.tables:
        for row, figures in table.rows:
            if row == label:
                return next((figures[table.models.index(name)] for name in found.models if name in table.models), None)
    return None
