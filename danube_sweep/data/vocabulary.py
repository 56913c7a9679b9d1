"""Token ids against the rows of the model's embedding: a tokenizer may have gained tokens that the model lacks."""

from typing import TYPE_CHECKING

from danube_sweep.data.encoded import Encoded
from danube_sweep.data.layout import Layout
from danube_sweep.data.text_reader import control_ids
from danube_sweep.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_vocabulary(tokenizer: "PreTrainedTokenizerBase", layout: Layout, embedded: int, path: str) -> None:
    """Raises ModelError, in one line, if a text, the markup or padding can have a token id of `embedded` or more.

    A special token beyond the embedding that none of these uses is accepted: in a text it is read as text.
    """
    markup = "".join([*layout.before, layout.after])
    around = tokenizer(markup, add_special_tokens=False, verbose=False)["input_ids"] if markup else []
    ends = [tokenizer.pad_token_id, *([tokenizer.eos_token_id] if layout.ends_with_eos else [])]
    control = control_ids(tokenizer, markup) - {*around, *ends}
    beyond = {number: name for name, number in tokenizer.get_vocab().items() if number >= embedded}
    used = sorted(beyond.keys() - control)
    if used:
        more = f" and {len(used) - 1} more" if len(used) > 1 else ""
        raise ModelError(
            f"model.path={path}: its tokenizer gives {beyond[used[0]]!r} the id {used[0]}{more}, and the model embeds "
            f"{embedded} tokens (vocab_size in config.json); resize the embedding (resize_token_embeddings) and save "
            "the model, or give the tokenizer that it was saved with"
        )


def check_ids(rows: Encoded, embedded: int, path: str) -> None:
    """Raises ModelError for the first row that has a token id of `embedded` or more."""
    wrong = next((place for place, ids in enumerate(rows.tokens) if len(ids) and int(ids.max()) >= embedded), None)
    if wrong is not None:
        name, number = rows.ids[wrong // rows.passes], int(rows.tokens[wrong].max())
        raise ModelError(
            f"model.path={path}: row {name} has the token id {number}, and the model embeds {embedded} tokens; give "
            "the tokenizer that the model was saved with"
        )
