"""The six benchmarks of the post, pinned: the harness's names, versions, shots and metrics. Imports no harness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

POST: Final = "post"
"""The word that stands for all six."""

VERSION: Final = "0.4.13"
"""The release of lm_eval whose tasks are pinned."""


@dataclass(frozen=True)
class PinnedTask:
    """One benchmark: a task of the harness with the settings of the published figure."""

    name: str
    label: str
    """Its row in the published tables."""
    shots: int
    version: float
    """Of the task, as the harness counts; another version may score otherwise."""
    metric: str
    """With the harness's filter: `acc,none`."""
    note: str


PINNED: Final = (
    PinnedTask("mmlu", "MMLU (5)", 5, 2, "acc,none", "57 subjects, weighted by size"),
    PinnedTask(
        "hellaswag", "HellaSwag (10)", 10, 1, "acc_norm,none", "the post says 5-shot, the model card 10; shots=5 for 5"
    ),
    PinnedTask(
        "arc_challenge",
        "ARC-Challenge (25)",
        25,
        1,
        "acc_norm,none",
        "the post says 5-shot, the model card 25; shots=5 for 5",
    ),
    PinnedTask(
        "truthfulqa_mc2", "TruthfulQA (0)", 0, 3, "acc,none", "mc2; the harness's prompt always holds six questions"
    ),
    PinnedTask(
        "winogrande", "WinoGrande (5)", 5, 1, "acc,none", "scored on the validation split: the test is unlabelled"
    ),
    PinnedTask(
        "gsm8k_cot",
        "GSM8K (5)",
        5,
        3,
        "exact_match,strict-match",
        "chain of thought, the first 5 of its 8 examples; the leaderboard of the model card took tasks=[gsm8k], whose "
        "examples are worked training rows",
    ),
)
"""The six, in the post's order."""

TEMPLATE_NOTE: Final = (
    "these prompts have the chat template, those of the published figures had none; chat_template=false omits it"
)


def named_tasks(tasks: Sequence[str]) -> list[str]:
    """The names asked for, `post` replaced by its six; each once."""
    every = [name for task in tasks for name in ([one.name for one in PINNED] if task == POST else [task])]
    return list(dict.fromkeys(every))


def pinned(name: str) -> PinnedTask | None:
    """The pinned settings of a task; None for any other."""
    return next((one for one in PINNED if one.name == name), None)
