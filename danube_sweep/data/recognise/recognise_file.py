"""The entry: which kind of data a file is, by its columns and their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from danube_sweep.data.arena_format import CLASSES, TEXTS
from danube_sweep.data.file_columns import FileColumns, read_columns
from danube_sweep.data.recognise.comparisons import guess_arena, guess_pairs, lacks_winners
from danube_sweep.data.recognise.guess import Given, Guess, check_test_columns
from danube_sweep.data.recognise.labelled_words import guess_words
from danube_sweep.data.recognise.text_and_label import guess_table
from danube_sweep.errors import ConfigError, DataError

KINDS: Final = ("arena", "pairs", "tokens", "table", "text")
"""The kinds that a file can be recognised as."""
LENGTHS: Final = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
BYTES_PER_TOKEN = 3.0
"""A low estimate for European languages: a limit that is too high costs less than texts that are cut."""
MARKUP_TOKENS = 32
LEAST_FOR_WORDS = 128
"""Twice the default of data.overlap."""
SHARE_THAT_FITS = 0.99
TEXT_FIELDS: Final = ("text_column", "prompt_column", "a_column", "b_column", "tokens_column")


@final
@dataclass(frozen=True)
class Recognised:
    """What a file was recognised as."""

    path: str
    seen: FileColumns
    guesses: list[Guess]
    """Each with its reason; given overrides stand among them."""
    to_predict: str | None
    """The test file, if it has no labels."""

    @property
    def overrides(self) -> list[str]:
        """The guesses as overrides, without the quotes of a shell."""
        return [guess.word for guess in self.guesses]


def recognise(path: str | Path, given: Sequence[str] = (), test: str | Path | None = None) -> Recognised:
    """Recognises the kind of data, the head and the columns of a csv, tsv, jsonl, json or parquet file.

    It looks at the file's first 20,000 rows. `given` are overrides that replace guesses. `test` is a file with labels
    to score, or without them to predict. Raises DataError for a file that is damaged, or that is of no known kind, with
    the override that settles it, and for a test file without the texts; ConfigError for a kind that no file is of.
    """
    words = Given(given)
    kind = words.text("data")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"data={kind}: init reads a file; choose one of {', '.join(f'data={one}' for one in KINDS)}")
    seen = read_columns(path)
    tested = None if test is None else read_columns(test, "--test")
    guesses = _guesses(seen, words, tested)
    guesses.insert(1, Guess("data.path", str(path), "the file"))
    replaced = words.overrule([*guesses, *_length(seen, guesses)])
    if tested is None:
        return Recognised(str(path), seen, replaced, None)
    labelled = _labelled(tested, replaced)
    check_test_columns(seen, tested, _read_columns([one for one in guesses if words.text(one.field) != "null"]))
    if labelled is None:
        return Recognised(str(path), seen, replaced, str(test))
    scored = [
        Guess("data.test_path", str(test), f"it has the labels too ({labelled})"),
        Guess("trainer.score_test", True, "the test file has labels"),
    ]
    return Recognised(str(path), seen, words.overrule([*replaced, *scored]), None)


def _guesses(seen: FileColumns, given: Given, tested: FileColumns | None) -> list[Guess]:
    kind = given.text("data")
    found: list[Guess] | None = None
    if kind in (None, "arena"):
        found = guess_arena(seen)
        if found is None and (kind == "arena" or (lacks_winners(seen) and seen.named(("winner", "label")) is None)):
            raise DataError(
                f"data.path={seen.path}: prompt, response_a and response_b but no winner (winner_model_a, "
                "winner_model_b and winner_tie, or winner); for a file to predict give the training file, and this one "
                "by --test"
            )
    if found is None and kind in (None, "pairs"):
        found = guess_pairs(seen, given)
    if found is None and kind in (None, "tokens"):
        found = guess_words(seen, given)
    if found is None and kind in ("pairs", "tokens"):
        raise DataError(f"data={kind}: {seen.path} has no such columns; name them, see danube-sweep --help data")
    return found or guess_table(seen, given, tested)


def _length(seen: FileColumns, guesses: Sequence[Guess]) -> list[Guess]:
    values = {guess.field: guess.value for guess in guesses}
    if values["data"] == "text":
        return []  # texts are cut into pieces of any length
    sizes = sorted(seen.sizes(_read_columns(guesses)))
    needed = sizes[min(len(sizes) - 1, int(len(sizes) * SHARE_THAT_FITS))] / BYTES_PER_TOKEN + MARKUP_TOKENS
    least = LEAST_FOR_WORDS if values["data"] == "tokens" else 0
    length = next((one for one in LENGTHS if one >= max(needed, least)), LENGTHS[-1])
    fits = "99 of 100 rows fit" if needed <= length else "longer rows are cut"
    return [Guess("data.max_length", length, f"{fits}, at {BYTES_PER_TOKEN:.0f} bytes a token")]


def _read_columns(guesses: Sequence[Guess]) -> list[str]:
    """The columns of texts that a model reads."""
    values = {guess.field: guess.value for guess in guesses}
    if values["data"] == "arena":
        return list(TEXTS)
    columns = [values.get(f"data.{field}") for field in TEXT_FIELDS]
    return [name for name in columns if name is not None]


def _labelled(tested: FileColumns, guesses: Sequence[Guess]) -> str | None:
    """The label's columns if the test file has them and they are filled in; None for a file to predict."""
    values = {guess.field: guess.word.partition("=")[2].strip("'\"") for guess in guesses}
    if values["data"] == "text":
        raise ConfigError(f"--test {tested.path}: data=text has no test part and predicts nothing; leave it out")
    columns = {
        "arena": CLASSES,
        "tokens": [values.get("data.labels_column", "labels")],
    }.get(values["data"], [values.get("data.label_column", "")])
    if "data.soft_label_columns" in values:
        columns = [name.strip(" '\"") for name in values["data.soft_label_columns"].strip("[]").split(",")]
    there = [name for name in columns if name in tested.names and len(tested.labels(name)) == tested.rows]
    return ", ".join(columns) if len(there) == len(columns) else None
