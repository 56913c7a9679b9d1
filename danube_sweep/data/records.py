"""A row of any data set in one form, and the three parts a trial sees."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One row: its texts and, where it is labelled, a probability per class."""

    id: str
    texts: tuple[str, ...]
    """(text,) or (prompt, answer A, answer B)."""
    label: tuple[float, ...] | None
    """A probability per class; None where unlabelled and in language modelling."""
    group: str
    """Rows of one group stay in one part: the prompt, or the text."""


@dataclass(frozen=True)
class Parts:
    """What is trained on, what trials are chosen on and what is scored once at the end."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]
    classes: list[str]
    """In the order of a label's entries; empty for language modelling."""
    bayes_log_loss: float | None = None
    """The lowest log loss that can be expected given the content, in nats, where it is known (generated data)."""
