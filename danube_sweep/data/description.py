"""A trial's data as facts and in a few lines: rows, classes, lengths, duplicates and leaks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from danube_sweep.config.schema import Columns, Comparison, Data, GroupBy, Labelled, Target
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.grouping import row_keys
from danube_sweep.data.records import Parts, Record

FEW_CLASSES = 6
"""So many are listed with their counts; of more the largest and the smallest are."""
LONGEST_NAME = 60
TOLD_SHARE = 0.01
"""The share of validation rows with a template of training from which on a line warns."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PartFacts:
    """One part. Lengths are in tokens, markup included and before any cut."""

    rows: int
    median_tokens: int
    longest_tokens: int
    cut_rows: int
    """Rows of which something is cut off, or texts that are cut into pieces."""
    empty_rows: int
    """Rows with a text that is empty."""


@dataclass(frozen=True)
class DataDescription:
    """Facts about training and validation rows; a test part has its `PartFacts` alone."""

    parts: dict[str, PartFacts]
    max_length: int
    unit: str
    """The text that identifies rows: prompt or text."""
    groups: int
    repeated: int
    """Rows whose prompt or text, but for case and blanks, an earlier row has."""
    repeated_templates: int
    """Rows whose template an earlier row has."""
    leaks: dict[str, int]
    """Validation rows whose text, template or group also occurs in training; a template counts where no text does."""
    cure: dict[str, str]
    """The way out for each kind of leak."""
    classes: dict[str, int] = field(default_factory=dict)
    """Rows of each class, the likeliest where labels are soft; words of each label."""
    unclassed: int = 0
    """Rows without any class, where there may be several."""
    untrained: list[str] = field(default_factory=list)
    """Classes that no training row has."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Lowest, mean and highest label, where it is a number."""
    notes: list[str] = field(default_factory=list)
    """Changes made while reading the files."""

    def lines(self) -> list[str]:
        """The facts as they are printed before training."""
        rows = " and ".join(_count(part.rows, f"{name} row") for name, part in self.parts.items() if name != "test")
        test = f", {self.parts['test'].rows:,} for the test" if "test" in self.parts else ""
        repeats = f"repeats: {self.repeated:,} by {self.unit}, {self.repeated_templates:,} by template"
        test += "" if "validation" in self.parts else ", none for validation"
        lines = [
            f"data: {rows}{test}, in {_count(self.groups, 'group')}; {repeats}",
            *self._label_lines(),
            f"lengths: {'; '.join(self._lengths(name) for name in self.parts)}",
        ]
        return [*lines, *self._warnings(), *(f"note: {note}" for note in self.notes)]

    def _label_lines(self) -> list[str]:
        if self.numbers:
            said = ", ".join(f"{name} {value:.6g}" for name, value in self.numbers.items())
            return [f"labels: numbers, {said}"]
        if not self.classes:
            return []
        ordered = sorted(self.classes.items(), key=lambda one: -one[1])
        shown = [f"{_short(name)} ({count:,})" for name, count in self.classes.items()]
        if len(ordered) > FEW_CLASSES:
            (most, high), (fewest, low) = ordered[0], ordered[-1]
            shown = [f"most {_short(most)} ({high:,})", f"fewest {_short(fewest)} ({low:,})"]
        if self.unclassed:
            shown.append(f"none ({self.unclassed:,})")
        return [f"classes: {len(ordered)}: {', '.join(shown)}"]

    def _lengths(self, name: str) -> str:
        part = self.parts[name]
        share = 100 * part.cut_rows / max(part.rows, 1)
        cut = (
            f"{part.cut_rows:,} over data.max_length={self.max_length} ({share:.3g} %)" if part.cut_rows else "none cut"
        )
        empty = f", {_count(part.empty_rows, 'empty text')}" if part.empty_rows else ""
        return f"{name} median {part.median_tokens:,}, longest {part.longest_tokens:,} tokens, {cut}{empty}"

    def _warnings(self) -> list[str]:
        total = self.parts["validation"].rows if "validation" in self.parts else 0
        rows = _count(total, "validation row")
        shared = {"text": f"a {self.unit}", "template": f"the template of a {self.unit}", "group": "a group"}
        found = [
            f"warning: {count:,} of {rows} have {shared[kind]} that also occurs in training; {self.cure[kind]}"
            for kind, count in self.leaks.items()
            if count >= (TOLD_SHARE * total if kind == "template" else 1) and count > 0
        ]
        if self.untrained:
            names = ", ".join(map(_short, self.untrained[:5])) + (", …" if len(self.untrained) > 5 else "")
            found.append(f"warning: no training row has {_count(len(self.untrained), 'of the classes', '')}: {names}")
        return found


def restored(stored: object) -> DataDescription | None:
    """The description that a JSON file holds as a table of its fields; None for anything else."""
    try:
        table = dict(stored)  # type: ignore[call-overload]
        return DataDescription(**{**table, "parts": {name: PartFacts(**part) for name, part in table["parts"].items()}})
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def describe(loaded: Parts, encoded: Mapping[str, Encoded], data: Data, target: Target) -> DataDescription:
    """The facts about a trial's records and their tokens; `encoded` may hold training rows in both orders."""
    records = {"training": loaded.train, "validation": loaded.validation, "test": loaded.test}
    names = {"training": "train", "validation": "validation", "test": "test"}
    chosen = [*loaded.train, *loaded.validation]
    keys = {by.value: _by_part(loaded, row_keys(chosen, data, loaded.classes, by)) for by in GroupBy}
    counts, unclassed = _classes(chosen, loaded.classes, target)
    trained, _ = _classes(loaded.train, loaded.classes, target)
    return DataDescription(
        parts={name: _part(rows, encoded[names[name]], data) for name, rows in records.items() if rows},
        max_length=data.max_length,
        unit="prompt" if isinstance(data, Comparison) else "text",
        groups=len({record.group for record in chosen}),
        repeated=_repeats(keys["text"]),
        repeated_templates=_repeats(keys["template"]),
        leaks=_leaks(loaded, keys, data),
        cure=_cures(data),
        classes=counts,
        unclassed=unclassed,
        untrained=[name for name, count in counts.items() if count and not trained[name]],
        numbers=_numbers(chosen) if target is Target.number else {},
        notes=loaded.notes,
    )


def _part(records: Sequence[Record], encoded: Encoded, data: Data) -> PartFacts:
    if data.labelled is Labelled.rows:
        lost = (encoded.sizes - (encoded.spans[:, :, 1] - encoded.spans[:, :, 0])).sum(axis=1)
        whole = np.array([len(tokens) for tokens in encoded.tokens]) + lost
        lengths = whole.reshape(-1, encoded.passes).max(axis=1)
        cut = round(float((lost.reshape(-1, encoded.passes).max(axis=1) > 0).mean()) * len(records))
    else:
        pieces = Counter(name.rpartition(":")[0] for name in encoded.ids)
        tokens: Counter[str] = Counter()
        for name, piece in zip(encoded.ids, encoded.tokens, strict=True):
            tokens[name.rpartition(":")[0]] += len(piece)
        lengths = np.array(list(tokens.values()) or [0])
        cut = sum(count > 1 for count in pieces.values())
    empty = sum(not all(text.strip() for text in _texts(record, data)) for record in records)
    return PartFacts(len(records), int(np.median(lengths)), int(lengths.max()), cut, empty)


def _texts(record: Record, data: Data) -> tuple[str, ...]:
    return ("".join(record.texts),) if data.labelled is Labelled.words else record.texts


def _by_part(loaded: Parts, keys: list[str]) -> tuple[list[str], list[str]]:
    return keys[: len(loaded.train)], keys[len(loaded.train) :]


def _repeats(keys: tuple[list[str], list[str]]) -> int:
    return len(keys[0]) + len(keys[1]) - len({*keys[0], *keys[1]})


def _leaks(loaded: Parts, keys: Mapping[str, tuple[list[str], list[str]]], data: Data) -> dict[str, int]:
    texts, templates = ([key in trained for key in held] for trained, held in _trained(keys))
    found = {"text": sum(texts)}
    found["template"] = sum(same and not text for text, same in zip(texts, templates, strict=True))
    if isinstance(data, Columns) and data.group_column is not None:
        groups = {record.group for record in loaded.train}
        found["group"] = sum(record.group in groups for record in loaded.validation)
    return found


def _trained(keys: Mapping[str, tuple[list[str], list[str]]]) -> Iterator[tuple[set[str], list[str]]]:
    for kind in ("text", "template"):
        train, held = keys[kind]
        yield set(train), held


def _cures(data: Data) -> dict[str, str]:
    own = data.own_parts[0]
    if own is not None:
        return dict.fromkeys(("text", "template", "group"), f"remove them from the training file or from {own}")
    return {
        "text": "data.group_by=text keeps equal texts in one part",
        "template": "data.group_by=template keeps them in one part",
        "group": "",
    }


def _classes(records: Sequence[Record], classes: Sequence[str], target: Target) -> tuple[dict[str, int], int]:
    """Rows or words per class, and the rows without any; soft labels count for the most likely class."""
    if target in (Target.number, Target.nothing):
        return {}, 0
    counts, none = Counter[int](), 0
    for record in records:
        label = record.label or ()
        if target is Target.words:
            counts.update(int(place) for place in label)
        elif target is Target.many:
            held = [place for place, share in enumerate(label) if share >= 0.5]
            counts.update(held)
            none += not held
        else:
            counts[max(range(len(label)), key=label.__getitem__)] += 1
    return {name: counts[place] for place, name in enumerate(classes)}, none


def _numbers(records: Sequence[Record]) -> dict[str, float]:
    values = np.array([record.label[0] for record in records if record.label])
    return {"lowest": float(values.min()), "mean": float(values.mean()), "highest": float(values.max())}


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{plural if number != 1 else ''}"
