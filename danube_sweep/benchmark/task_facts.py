"""How many requests well-known tasks have and how long they are, for plans. Their data are not read."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class TaskFacts:
    """The size of a task. Numbers of items are those of its data set; tokens are estimates for English tokenizers."""

    items: int
    """Of the part that is scored."""
    rows: float
    """Rows of an item that go through the model: one for each choice, one in all where choices are single letters."""
    item_tokens: float
    """Of one of these rows without examples, the answer included."""
    example_tokens: float
    """Of an example before it."""
    shots: int
    """Where nobody asks for another number."""
    answer_tokens: float = 0.0
    """For a task whose answers are generated: the most that the harness lets the model write."""
    subtasks: int = 1
    """Tasks of the group, for each of which a limit counts."""


FACTS: Final = {
    "mmlu": TaskFacts(14_042, 1, 110, 110, 5, subtasks=57),
    "hellaswag": TaskFacts(10_042, 4, 90, 90, 10),
    "arc_easy": TaskFacts(2_376, 4, 35, 40, 0),
    "arc_challenge": TaskFacts(1_172, 4, 45, 40, 25),
    "truthfulqa_mc2": TaskFacts(817, 7.2, 185, 0, 0),
    "winogrande": TaskFacts(1_267, 2, 25, 27, 5),
    "gsm8k": TaskFacts(1_319, 1, 70, 170, 5, answer_tokens=256),
    "gsm8k_cot": TaskFacts(1_319, 1, 70, 95, 5, answer_tokens=256),
}
"""Items: arXiv 2009.03300 and the data set cais/mmlu, 1905.07830, 1803.05457, 2109.07958, 1907.10641, 2110.14168.

MMLU's choices are single letters, which the harness reads from one pass. docs/benchmark.md has the table.
"""
