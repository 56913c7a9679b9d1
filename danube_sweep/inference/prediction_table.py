"""The csv that `predict` writes: its columns, its rows, and the order and columns of a sample submission."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.config.schema import Config, Target
from danube_sweep.data.records import OUTSIDE
from danube_sweep.errors import ConfigError
from danube_sweep.results.decisions.decide_command import Decided
from danube_sweep.training.metrics import decided

SHARES = (Target.one, Target.ordered, Target.words)
"""The targets whose answers to an example are probabilities that sum to 1."""
_KIND = {Target.many: "this run finds any number of them", Target.number: "this run predicts a number"}


@dataclass(frozen=True)
class Form:
    """The form of the output: a probability per class, or a number. Each word has a row."""

    swap: bool = False
    """Both orders of the answers are averaged."""
    labels: bool = False
    """The likeliest class instead, of ordered ones the median; of words those that are no O: the PII competition's."""
    id_column: str | None = None
    """The input's column of ids, where it is neither the run's data.id_column nor called id."""
    like: Path | None = None
    """A sample submission, whose columns, order and ids the output takes."""
    rule: Decided | None = None
    """The rule that decides the labels; None takes the default above."""
    target: Target | None = None
    """Of an ensemble's answers; None is that of the run's head."""


@dataclass(frozen=True)
class Predictions:
    """Answers to n examples: rows, or words as `<text>:<word>`."""

    examples: list[str]
    answers_NA: torch.Tensor
    """float64: probabilities of the classes, or a number."""


@dataclass(frozen=True)
class Table:
    """The table written for a run's answers."""

    names: list[str]
    """The columns that say which row, or which word, an answer is to."""
    answers: list[str]
    """The columns of the answers."""
    rows: Callable[[Predictions, int], Iterator[list[str]]]
    """The rows of a chunk, before which so many were written."""

    @property
    def header(self) -> list[str]:
        return [*self.names, *self.answers]


def table_of(config: Config, classes: Sequence[str], *, form: Form, id_column: str | None) -> tuple[Table, list[str]]:
    """The table of a run, and notes on columns that had to be renamed.

    `id_column` is the header of the ids. Raises ConfigError if there is nothing to predict or no class to name.
    """
    target, labels, rule = form.target or config.head.target, form.labels, form.rule
    if target is Target.nothing:
        raise ConfigError("head=lm predicts no classes; predict needs a run with another head")
    if labels and rule is None and target in _KIND:
        raise ConfigError(
            f"--labels names one class a row, and {_KIND[target]}; leave it out, or get a rule by danube-sweep decide"
        )
    names = [id_column or "document", "token"] if target is Target.words else [id_column or "id"]
    if not labels:
        answers, rows = list(classes), _probabilities(target)
    elif target is Target.words:
        names, answers, rows = ["row_id", *names], ["label"], _entities(classes, _decide(target, rule))
    elif target is Target.many:
        answers, rows = list(classes), _there(_decide(target, rule))
    else:
        named = rule.classes if rule is not None and target is Target.number else classes
        answers, rows = [config.data.label_name], _one_label(named, _decide(target, rule))
    free = [_free(name, answers) for name in names]
    notes = [
        f"the column {name!r} is written as {new!r}: a column of the answers is called {name!r} too"
        for name, new in zip(names, free, strict=True)
        if name != new
    ]
    return Table(free, answers, rows), notes


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name = f"row_{name}"
    return name


def _probabilities(target: Target) -> Callable[[Predictions, int], Iterator[list[str]]]:
    # Every digit, or a row of many classes would not sum to 1; a number has those of fp32.
    written: Callable[[float], str] = (lambda value: format(value, ".9g")) if target is Target.number else repr

    def rows(found: Predictions, _before: int) -> Iterator[list[str]]:
        for name, values in zip(found.examples, found.answers_NA.tolist(), strict=True):
            yield [*_split(name, target), *map(written, values)]

    return rows


Decide = Callable[[torch.Tensor], list[Any]]


def _decide(target: Target, rule: Decided | None) -> Decide:
    """The decision on an answer: by the rule, otherwise the likeliest class, or the median of ordered ones."""
    if rule is None:
        return lambda answers_NA: decided(target, answers_NA).tolist()
    chosen = rule.rule
    return lambda answers_NA: chosen.decide(answers_NA.numpy()).tolist()


def _one_label(classes: Sequence[str], decide: Decide) -> Callable[[Predictions, int], Iterator[list[str]]]:
    def rows(found: Predictions, _before: int) -> Iterator[list[str]]:
        for name, place in zip(found.examples, decide(found.answers_NA), strict=True):
            yield [name, classes[place]]

    return rows


def _there(decide: Decide) -> Callable[[Predictions, int], Iterator[list[str]]]:
    def rows(found: Predictions, _before: int) -> Iterator[list[str]]:
        for name, there in zip(found.examples, decide(found.answers_NA), strict=True):
            yield [name, *("1" if one else "0" for one in there)]

    return rows


def _entities(classes: Sequence[str], decide: Decide) -> Callable[[Predictions, int], Iterator[list[str]]]:
    def rows(found: Predictions, before: int) -> Iterator[list[str]]:
        for name, place in zip(found.examples, decide(found.answers_NA), strict=True):
            if classes[place] != OUTSIDE:
                yield [str(before), *_split(name, Target.words), classes[place]]
                before += 1

    return rows


def _split(name: str, target: Target) -> list[str]:
    text, _, word = name.rpartition(":")
    return [text, word] if target is Target.words else [name]


def csv_line(cells: Sequence[str]) -> str:
    r"""The cells as a line that ends in LF; a cell with a CR or an LF in it is quoted."""
    text = io.StringIO()
    csv.writer(text).writerow(cells)  # with its own CRLF, or it would leave a lone CR unquoted
    return text.getvalue().removesuffix("\r\n") + "\n"


def notes_on_names(header: Sequence[str]) -> list[str]:
    """Lines on columns that are written otherwise than they are called, so that no spreadsheet runs them."""
    return [
        f"the column {name!r} is written as {neutral_cell(name)!r}, which danube-sweep reads back"
        for name in header
        if neutral_cell(name) != name
    ]


def in_sample_order(rows: Iterable[list[str]], ids: Sequence[str], places: Sequence[int]) -> Iterator[list[str]]:
    """The rows in the order of a sample's `ids`, the row of each under the sample's spelling of its id.

    `places`: for each of the sample's columns the place of its cell in a row.
    """
    found = {same_id(row[0]): row for row in rows}
    for name in ids:
        row = [name, *found[same_id(name)][1:]]
        yield [row[place] for place in places]


def same_id(text: str) -> str:
    """An id as it compares: a whole number that a table read as a float is that number."""
    whole, point, rest = text.strip().partition(".")
    return whole if point and whole.lstrip("-").isdecimal() and not rest.strip("0") else text.strip()
