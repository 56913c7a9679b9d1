"""How a record's texts become sequences: the markup around them, and which of them a sequence holds."""

from dataclasses import dataclass

from danube_sweep.config.schema import Comparison, Data, Head, Labelled, Model
from danube_sweep.data.chat_markup import Markup, stated_markup

_PAIR = ("Prompt: ", "\n\nAnswer A: ", "\n\nAnswer B: ")
_ONE_ANSWER = ("Prompt: ", "\n\nAnswer: ")


@dataclass(frozen=True)
class Layout:
    """One sequence, or several passes of the same form over parts of the record."""

    before: tuple[str, ...]
    """The markup before each text of a sequence."""
    after: str
    """The markup after the last text."""
    ends_with_eos: bool
    passes: tuple[tuple[int, ...], ...] = ()
    """Which of the record's texts each sequence holds; () for one sequence of them all."""
    in_context: bool = False
    """Whether a text's tokens are those that it has after its markup, and not those that it has by itself."""


def layout_for(model: Model, data: Data, head: Head, markup: Markup | None = None) -> Layout:
    """The layout that suits the data's texts, the head and the model's markup.

    `markup`: as the tokenizer gives it; without, as the config states it.
    """
    around = markup or stated_markup(model)
    if data.labelled is not Labelled.rows:  # its text alone
        return Layout((around.start,), "", ends_with_eos=data.labelled is Labelled.nothing)
    pairs = isinstance(data, Comparison)
    before: tuple[str, ...] = _PAIR if pairs else ("",)
    passes: tuple[tuple[int, ...], ...] = ()
    if head.passes == 2:  # the prompt with A, and with B
        before, passes = _ONE_ANSWER, ((0, 1), (0, 2))
    cue = ("\n\nBetter answer:" if pairs else "\n\nLabel:") if head.cued else ""
    before = (around.before + before[0], *before[1:])
    ends_with_eos = model.variant != "chat" and not cue
    return Layout(before, cue + around.after, ends_with_eos, passes, in_context=around.rendered)
