"""A guess about a file, and the overrides that replace guesses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from danube_sweep.config.override_words import override_word
from danube_sweep.data.file_columns import FileColumns
from danube_sweep.errors import ConfigError, DataError

GIVEN = "given"
ID_NAMES = ("id", "row_id", "uuid", "guid", "document", "document_id", "question_id", "index")


@final
@dataclass(frozen=True)
class Guess:
    """The value of a field or the option of a group, and why."""

    field: str
    value: Any
    reason: str
    given: bool = False
    """Whether it was given and not guessed."""

    @property
    def word(self) -> str:
        """As an override, without the quotes of a shell."""
        return str(self.value) if self.given else override_word(self.field, self.value)


@final
class Given:
    """The overrides of a command, by field."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words: dict[str, str] = {}
        for word in words:
            field, equals, _ = word.partition("=")
            if not equals or not field:
                raise ConfigError(f"{word}: not an override; write GROUP=OPTION or FIELD=VALUE")
            self._words[field] = word

    def text(self, field: str) -> str | None:
        """The value of a field as a plain text; None if it is not given."""
        word = self._words.get(field)
        return None if word is None else word.partition("=")[2].strip("'\"")

    def column(self, field: str, seen: FileColumns) -> str | None:
        """The column that a field names; None if it is not given, or null. Raises DataError if it is not there."""
        name = self.text(field)
        return None if name in (None, "null") else seen.require(str(name), field)

    def overrule(self, guesses: Sequence[Guess]) -> list[Guess]:
        """The guesses, with those that are given in their place and the other overrides behind them."""
        fields = [guess.field for guess in guesses]
        replaced = [self._given(guess.field) if guess.field in self._words else guess for guess in guesses]
        return [*replaced, *(self._given(field) for field in self._words if field not in fields)]

    def _given(self, field: str) -> Guess:
        return Guess(field, self._words[field], GIVEN, given=True)


def check_test_columns(seen: FileColumns, tested: FileColumns, columns: Sequence[str]) -> None:
    """Raises DataError for a test file that lacks columns which a model reads in the training file `seen`."""
    lacking = [name for name in columns if name not in tested.names]
    if lacking:
        raise DataError(
            f"--test={tested.path}: no column{'s' * (len(lacking) > 1)} {', '.join(map(repr, lacking))} (it has "
            f"{', '.join(map(repr, tested.names[:20]))}{', …' if len(tested.names) > 20 else ''}); call its texts as "
            f"{seen.path} does"
        )


def guess_id(seen: FileColumns, given: Given, but: Sequence[str | None]) -> list[Guess]:
    """The id column, if there is one."""
    if given.text("data.id_column") is not None:
        given.column("data.id_column", seen)
        return [Guess("data.id_column", None, GIVEN)]  # `overrule` puts the given one in its place
    name = seen.named(ID_NAMES, but=but)
    if name is None:
        return []
    if seen.distinct(name) < seen.rows:
        return [Guess("data.id_column", None, f"rows are numbered: values of {name!r} repeat")]
    return [Guess("data.id_column", name, "its name, and no value repeats")]
