"""Arena records made on the spot, whose winner follows from the answers' content.

A right answer beats a wrong one, which beats no answer at all (a refusal, gibberish, something else, a stub); equal
quality is a tie. No answer shows on the surface, so any model learns that half; telling right from wrong takes
reading the question. Of the pairs, 35 % are won by A, 35 % by B and 30 % are ties; half of the ties are two
non-answers, and 35 % of the others are right against wrong.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from danube_sweep.config.require import check_seed, require
from danube_sweep.config.schema import Comparison, Target, setting
from danube_sweep.data.arena_format import CLASSES, TEXTS, read_arena
from danube_sweep.data.kind import DataKind
from danube_sweep.data.records import Parts, Record
from danube_sweep.data.split import split
from danube_sweep.storage.files import whole_file

NONE, WRONG, RIGHT = 0, 1, 2
_TIES = ([NONE] * 10) + ([WRONG] * 4) + ([RIGHT] * 6)
_WINS = ([(RIGHT, WRONG)] * 7) + ([(RIGHT, NONE)] * 8) + ([(WRONG, NONE)] * 5)

Question = tuple[str, str, str]
"""The question, its answer, and a wrong answer of the same kind."""

_CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Hungary": "Budapest", "Serbia": "Belgrade", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Greece": "Athens", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Ireland": "Dublin", "Belgium": "Brussels", "Croatia": "Zagreb",
    "Slovakia": "Bratislava", "Ukraine": "Kyiv", "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Japan": "Tokyo", "China": "Beijing", "India": "Delhi", "Peru": "Lima", "Chile": "Santiago", "Cuba": "Havana",
    "Canada": "Ottawa", "Iraq": "Baghdad",
}  # fmt: skip
_WORDS = [
    "river", "bridge", "window", "garden", "yellow", "doctor", "market", "silver", "planet", "pencil", "bottle",
    "island", "forest", "butter", "candle", "dragon", "engine", "flower", "guitar", "hammer", "jacket", "kitten",
    "ladder", "mirror", "needle", "orange", "pepper", "rabbit", "saddle", "tunnel", "valley", "winter",
]  # fmt: skip
_NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karla", "Leo"]
_UNITS = [("centimetres", "metres", 100), ("minutes", "hours", 60), ("grams", "kilograms", 1000), ("days", "weeks", 7)]
_ANSWERS = ["The answer is {}.", "It is {}.", "{}.", "That would be {}.", "Sure! The answer is {}.", "I get {}."]
_REFUSALS = [
    "I am sorry, but I cannot help with that.",
    "As a language model, I am not able to answer this.",
    "Sorry, I do not know.",
    "I would rather not answer that question.",
]
_OFF_TOPIC = [
    "The weather has been lovely this week, with plenty of sunshine.",
    "My favourite recipe needs flour, eggs and a little sugar.",
    "Football is played by two teams of eleven players.",
    "Have you ever seen the northern lights? They are stunning.",
]
_STUBS = ["Let me think. First we have to", "Well, to answer this we need to", "The answer", "Sure! The"]
_FILLERS = [
    "Let me know if you need anything else.",
    "I hope that this is useful to you.",
    "Feel free to ask me another question at any time.",
    "You can check this for yourself in a few seconds.",
    "Many people ask about this, so you are in good company.",
]


@dataclass
class GeneratedData(Comparison, DataKind):
    """Arena records made on the spot, whose winner follows from the answers' content."""

    known_classes: ClassVar[int | None] = len(CLASSES)

    rows: int = setting("number of records", 2000)
    seed: int = setting("seed of the records", 0)
    noise: float = setting("share of the labels replaced by another one, 0 to 1", 0.1)

    def check(self) -> None:
        require(self.rows >= 10, f"data.rows must be at least 10, got {self.rows}")
        check_seed("data.seed", self.seed)
        require(0 <= self.noise < 1, f"data.noise must be at least 0 and under 1, got {self.noise}")

    def load(self, target: Target) -> Parts:
        records = generate(self.rows, self.seed, self.noise)
        return Parts(*split(records, self), list(CLASSES), bayes_log_loss(self.noise))

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_arena(path, field)

    def sample(self, most: int) -> tuple[list[Record], int] | None:
        return generate(min(self.rows, most), self.seed, self.noise), self.rows


def generate(rows: int, seed: int, noise: float) -> list[Record]:
    """`rows` labelled records, the same on every machine; the texts do not depend on `noise`.

    `noise` is the share of labels replaced by one of the other two, each as likely.
    """
    content, labels = Random(f"content {seed}"), Random(f"labels {seed}")
    return [_record(number, content, labels, noise) for number in range(1, rows + 1)]


def bayes_log_loss(noise: float) -> float:
    """The expected log loss, in nats, of someone who reads every answer right and knows `noise`."""
    shares = [1 - noise, noise / 2, noise / 2]
    return -sum(share * math.log(share) for share in shares if share > 0)


def write_csv(records: Iterable[Record], path: str | Path) -> None:
    """Writes labelled records as the competition's train.csv. Raises DiskError."""
    with (
        whole_file(Path(path), "choose another folder") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", "model_a", "model_b", *TEXTS, *CLASSES])
        for record in records:
            texts = [json.dumps([text], ensure_ascii=False) for text in record.texts]
            writer.writerow([record.id, "a", "b", *texts, *(f"{share:.9g}" for share in record.label or ())])


def _record(number: int, content: Random, labels: Random, noise: float) -> Record:
    question, right, wrong = content.choice(_FAMILIES)(content)
    winner = content.choices(range(3), weights=[35, 35, 30])[0]
    if winner == 2:
        a = b = content.choice(_TIES)
    else:
        better, worse = content.choice(_WINS)
        a, b = (better, worse) if winner == 0 else (worse, better)
    answers = [_answer(content, quality, right, wrong) for quality in (a, b)]
    # Both draws are made in every row, so a row's noise does not move with that of the rows before it.
    replaced, other = labels.random() < noise, labels.randrange(1, 3)
    winner = (winner + other) % 3 if replaced else winner
    return Record(str(number), (question, *answers), tuple(float(winner == k) for k in range(3)), group=question)


def _answer(random: Random, quality: int, right: str, wrong: str) -> str:
    if quality == NONE:
        kind = random.randrange(4)
        if kind == 0:
            text = " ".join(_gibberish(random) for _ in range(random.randrange(4, 9)))
        else:
            text = random.choice((_REFUSALS, _OFF_TOPIC, _STUBS)[kind - 1])
        if kind == 3:
            return text
    else:
        text = random.choice(_ANSWERS).format(right if quality == RIGHT else wrong)
    # Some answers are long whatever their quality: length says nothing, but batches have something to sort.
    fillers = random.choices([0, 1, 3, 8], weights=[60, 25, 10, 5])[0]
    return " ".join([text, *(random.choice(_FILLERS) for _ in range(fillers))])


def _gibberish(random: Random) -> str:
    return "".join(random.choice("bcdfghjklmnpqrstvwxz") for _ in range(random.randrange(3, 8)))


def _sum(random: Random) -> Question:
    a, b = random.randrange(10, 100), random.randrange(10, 100)
    off = random.choice((-10, -2, -1, 1, 2, 10))
    return f"What is {a} plus {b}?", str(a + b), str(a + b + off)


def _larger(random: Random) -> Question:
    low, high = sorted(random.sample(range(10, 1000), 2))
    shown = random.sample((low, high), 2)
    return f"Which number is larger, {shown[0]} or {shown[1]}?", str(high), str(low)


def _capital(random: Random) -> Question:
    country, other = random.sample(sorted(_CAPITALS), 2)
    start = random.choice(("What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?"))
    return start.format(country), _CAPITALS[country], _CAPITALS[other]


def _repeat(random: Random) -> Question:
    words = random.sample(_WORDS, 3)
    place = random.randrange(3)
    asked = ("first", "second", "third")[place]
    wrong = words[(place + random.randrange(1, 3)) % 3]
    return f"Which word comes {asked}: {', '.join(words)}?", words[place], wrong


def _sorting(random: Random) -> Question:
    numbers = random.sample(range(1, 100), 3)
    right, wrong = sorted(numbers), sorted(numbers, reverse=True)
    return _listed("Sort from low to high:", numbers), _listed("", right), _listed("", wrong)


def _listed(start: str, numbers: list[int]) -> str:
    return f"{start} {', '.join(map(str, numbers))}".strip()


def _unit(random: Random) -> Question:
    small, large, factor = random.choice(_UNITS)
    count = random.randrange(2, 100)
    wrong = count * factor + random.choice((-1, 1)) * factor
    return f"How many {small} are {count} {large}?", f"{count * factor} {small}", f"{wrong} {small}"


def _story(random: Random) -> Question:
    names = random.sample(_NAMES, random.randrange(3, len(_NAMES)))
    counts = random.sample(range(2, 90), len(names))
    text = " ".join(f"{name} has {count} apples." for name, count in zip(names, counts, strict=True))
    most = max(zip(counts, names, strict=True))[1]
    return f"{text} Who has the most apples?", most, random.choice([name for name in names if name != most])


_FAMILIES: tuple[Callable[[Random], Question], ...] = (_sum, _larger, _capital, _repeat, _sorting, _unit, _story)


OPTION = GeneratedData
