"""Two answers to a prompt: the competition's columns, or a column for each text and one for the winner."""

import re
from typing import Final

from danube_sweep.data.arena_format import CLASSES, TEXTS, one_hot
from danube_sweep.data.file_columns import FileColumns
from danube_sweep.data.recognise.guess import GIVEN, Given, Guess, guess_id
from danube_sweep.errors import DataError

ANSWERS: Final = re.compile(r"(?:response|answer|completion|output|reply|generation|summary)s?[ _.-]?(a|b|0|1|2)")
PROMPTS: Final = ("prompt", "question", "instruction", "query", "input", "context", "post")
WINNERS: Final = ("winner", "preference", "preferred", "label", "choice", "better", "chosen", "vote", "result")
_TIES = re.compile(r"tie|equal|draw|both|same|neither")
_SIDES = re.compile(r"(?:model|response|answer|output|completion)?[ _.-]?(a|b|1|2)")


def guess_arena(seen: FileColumns) -> list[Guess] | None:
    """The guesses for a file in the competition's columns; None for any other."""
    if not set(TEXTS) <= set(seen.names) or not set(CLASSES) <= set(seen.names):
        return None
    guesses = [
        Guess("data", "arena", f"the columns {', '.join(TEXTS)} and {', '.join(CLASSES)}"),
        Guess("head", "preference", "one of three: A, B or a tie"),
    ]
    rows = zip(*(seen.values[name] for name in CLASSES), strict=True)
    if not all(one_hot(dict(zip(CLASSES, row, strict=True))) for row in rows):
        guesses.append(Guess("data.soft_labels", True, "the winner columns are not one 1 and two 0"))
    return guesses


def guess_pairs(seen: FileColumns, given: Given) -> list[Guess] | None:
    """The guesses for two answers in plain columns; None for a file without them.

    Raises DataError for answers without a winner, and for labels that do not tell which answer won.
    """
    answers = _answers(seen, given)
    if answers is None:
        if {"chosen", "rejected"} <= set(seen.names):
            raise DataError(
                f"data.path={seen.path}: chosen and rejected are read as two answers and a winner; write them as "
                "response_a and response_b in random order, with the column winner (model_a or model_b)"
            )
        return None
    winner = given.column("data.label_column", seen) or seen.named(WINNERS, but=answers)
    if winner is None:
        raise DataError(
            f"data.path={seen.path}: answers in {answers[0]!r} and {answers[1]!r} but no winner; for a file to predict "
            "give the training file, and this one by --test; otherwise give data.label_column=COLUMN"
        )
    prompt = given.column("data.prompt_column", seen) or seen.named(PROMPTS, but=[*answers, winner])
    sides, classes = _sides(seen, given, winner)
    return [
        Guess("data", "pairs", f"two columns of answers, {answers[0]} and {answers[1]}, and one of winners"),
        Guess("head", "preference", f"one of {classes}: the winner"),
        Guess("data.prompt_column", prompt, "its name" if prompt else "no column is named so"),
        Guess("data.a_column", answers[0], "its name"),
        Guess("data.b_column", answers[1], "its name"),
        Guess("data.label_column", winner, "its name"),
        *sides,
        *guess_id(seen, given, [prompt, *answers, winner]),
    ]


def lacks_winners(seen: FileColumns) -> bool:
    """Whether it is the competition's test file: the texts without the winner columns."""
    return set(TEXTS) <= set(seen.names) and not set(CLASSES) & set(seen.names)


def _answers(seen: FileColumns, given: Given) -> tuple[str, str] | None:
    one, other = (given.column(f"data.{side}_column", seen) for side in "ab")
    if one and other:
        return one, other
    found = sorted(name for name in seen.names if ANSWERS.fullmatch(name.strip().lower()))
    return (found[0], found[1]) if len(found) == 2 else None


def _sides(seen: FileColumns, given: Given, winner: str) -> tuple[list[Guess], str]:
    """The guesses for the labels of A, B and a tie, and the number of classes in words."""
    labels = sorted(set(seen.labels(winner)))
    if given.text("data.a_label") and given.text("data.b_label"):
        classes = "two" if given.text("data.tie_labels") in (None, "[]") else "three"
        return [Guess("data.a_label", None, GIVEN), Guess("data.b_label", None, GIVEN)], classes
    sides, ties, why = _by_name(labels)
    if set(labels) <= {"0", "1", "2"} and "0" in labels:
        sides, ties = {"a": "0", "b": "1"}, [label for label in labels if label == "2"]
        why = "the labels are 0 and 1: 0 is taken for the first answer" + (", 2 for a tie" if ties else "")
    rest = set(labels) - set(sides.values()) - set(ties)
    if set(sides) != {"a", "b"} or rest:
        shown = ", ".join(map(repr, labels[:6])) + (", …" if len(labels) > 6 else "")
        raise DataError(
            f"data.path={seen.path}: which of the labels {shown} in {winner!r} means A, B or a tie? Give "
            "data.a_label=…, data.b_label=… and, for ties, data.tie_labels=[…]"
        )
    guesses = [Guess("data.a_label", sides["a"], why), Guess("data.b_label", sides["b"], why)]
    if ties:
        guesses.append(Guess("data.tie_labels", ties, "they name a tie" if "2" not in ties else why))
    return guesses, "three" if ties else "two"


def _by_name(labels: list[str]) -> tuple[dict[str, str], list[str], str]:
    ties = [label for label in labels if _TIES.search(label.lower())]
    sides: dict[str, str] = {}
    for label in labels:
        side = _SIDES.fullmatch(label.strip().lower())
        if side is not None and label not in ties:
            sides.setdefault({"1": "a", "2": "b"}.get(side[1], side[1]), label)
    return sides, ties, "the label's name"
