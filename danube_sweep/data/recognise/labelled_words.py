"""Words with a label each: two columns of lists that are equally long."""

from typing import Final

from danube_sweep.data.file_columns import FileColumns
from danube_sweep.data.recognise.guess import Given, Guess, guess_id
from danube_sweep.errors import DataError

WORDS: Final = ("tokens", "words")
LABELS: Final = ("labels", "ner_tags", "tags", "ner", "bio", "label", "entities")
SPACES: Final = ("trailing_whitespace", "whitespace", "spaces")


def guess_words(seen: FileColumns, given: Given) -> list[Guess] | None:
    """The guesses for words with labels; None for a file without two lists of equal lengths."""
    words = given.column("data.tokens_column", seen) or seen.named(WORDS)
    lists = seen.lists(words) if words else None
    if words is None or lists is None or not all(isinstance(word, str) for one in lists for word in one):
        return None
    labels = given.column("data.labels_column", seen) or seen.named(LABELS, but=[words])
    found = seen.lists(labels) if labels else None
    if labels is None or found is None:
        raise DataError(
            f"data.path={seen.path}: lists of words in {words!r} but no list of labels; for a file to predict give the "
            "training file, and this one by --test; otherwise give data.labels_column=COLUMN"
        )
    if list(map(len, lists)) != list(map(len, found)):
        return None
    named = all(isinstance(label, str) for one in found for label in one)
    guesses = [
        Guess("data", "tokens", f"lists of equal lengths in {words} and {labels}"),
        Guess("head", "token", "a label for every word" + ("" if named else "; numbers have no B- and I-")),
        Guess("data.tokens_column", words, "its name, and lists of words"),
        Guess("data.labels_column", labels, "its name, and one entry per word"),
    ]
    spaces = seen.named(SPACES, but=[words, labels])
    flags = seen.lists(spaces) if spaces else None
    if flags is not None and all(isinstance(flag, bool) for one in flags for flag in one):
        guesses.append(Guess("data.whitespace_column", spaces, "its name, and lists of true and false"))
    return [*guesses, *guess_id(seen, given, [words, labels, spaces])]
