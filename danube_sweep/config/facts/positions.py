"""The longest row that a model can read, and the notes about long rows."""

from collections.abc import Mapping
from typing import Any

from danube_sweep.config.facts.architectures import FAMILIES


def row_limit(described: Mapping[str, Any]) -> int | None:
    """The most tokens of a row that a transformers config allows; None where rows may be of any length.

    A learned position for every place ends at the last one. Rotary and relative positions do not end.
    """
    kind = described.get("model_type")
    learned = not any(described.get(name) for name in ("rope_parameters", "rope_scaling", "rope_theta"))
    if kind in FAMILIES:
        learned = FAMILIES[kind].encoder and bool(described.get("position_biased_input", True))
    last = described.get("max_position_embeddings")
    return int(last) if learned and last is not None else None


def too_long(limit: int, max_length: int) -> str:
    """The error for a `data.max_length` beyond the limit."""
    return f"data.max_length must be at most {limit}, the model's last position, got {max_length}"


def length_note(limit: int | None, pretrained: int, *, max_length: int, longest: int) -> str | None:
    """A line for rows that end at the limit, or are longer than those of the pretraining; None for any other."""
    if limit is not None and max_length == limit:
        return f"data.max_length={limit}: the model has no positions beyond this"
    if longest > pretrained:
        return (
            f"rows have up to {longest:,} tokens and the model was pretrained on at most {pretrained:,}: it reads the "
            "longer ones whole, but may answer them worse; data.max_length cuts them"
        )
    return None
