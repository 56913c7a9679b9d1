"""Rows without padding: laid end to end, each attending to itself alone (`data.batching=packed`).

Axes: B rows, T tokens of the longest, N groups of rows, S tokens of a flat row, V tokens without padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from danube_sweep.config.facts.architectures import cannot_be_flat
from danube_sweep.errors import ConfigError
from danube_sweep.model.attention import REPEATED, WIDENED, repeated_attention, widened_attention

Attend = Callable[..., tuple[torch.Tensor, Any]]

FLAT = "flat_"
"""What the name of an attention inside segments begins with."""

KERNELS: dict[str, Attend] = {
    "sdpa": sdpa_attention_forward,
    REPEATED: repeated_attention,
    WIDENED: widened_attention,
    "eager": eager_attention_forward,  # of Gemma 2 alone, whose scores are capped
}
"""The attention inside a sequence, by that of the padded model."""


@dataclass(frozen=True)
class Flat:
    """The positions of padded rows' tokens in flat rows."""

    lengths: list[list[int]]
    """[N][…]: tokens of each sequence of a flat row, in order; the rest of S is padding."""
    shape: tuple[int, int, int, int]
    """B, T, N, S."""
    sources_V: torch.Tensor
    """Places in [B * T]."""
    places_V: torch.Tensor
    """Places in [N * S]."""
    positions_NS: torch.Tensor
    """From 0 in every sequence."""

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of a body of `use_flat`, beside its tokens or embeddings."""
        return {"position_ids": self.positions_NS, "segments": self.lengths}

    def lay(self, padded: torch.Tensor) -> torch.Tensor:
        """[B, T, …] as [N, S, …], zero at padding."""
        rows, width, groups, length = self.shape
        values = padded.reshape(rows * width, *padded.shape[2:]).index_select(0, self.sources_V)
        flat = values.new_zeros(groups * length, *values.shape[1:]).index_copy_(0, self.places_V, values)
        return flat.view(groups, length, *values.shape[1:])

    def unlay(self, flat: torch.Tensor) -> torch.Tensor:
        """[N, S, …] as [B, T, …], zero at padding."""
        rows, width, _, _ = self.shape
        values = flat.flatten(0, 1).index_select(0, self.places_V)
        padded = values.new_zeros(rows * width, *values.shape[1:]).index_copy_(0, self.sources_V, values)
        return padded.view(rows, width, *values.shape[1:])


def flatten(mask_BT: torch.Tensor, groups: int = 1) -> Flat:
    """The plan that lays each of `groups` equal groups of rows into one flat row, all as long as the longest.

    A row's tokens are those where its mask is true, at any position; a row may have none.
    """
    rows, width = mask_BT.shape
    lengths_NR = mask_BT.sum(dim=1).view(groups, -1).tolist()
    counts = [sum(lengths) for lengths in lengths_NR]
    length, device = max(counts), mask_BT.device
    sources_V = mask_BT.flatten().nonzero().squeeze(1)
    places_V = torch.cat([torch.arange(count, device=device) + n * length for n, count in enumerate(counts)])
    positions_V = (mask_BT.cumsum(dim=1) - 1).flatten().index_select(0, sources_V)
    positions = positions_V.new_zeros(groups * length).index_copy_(0, places_V, positions_V)
    kept = [[count for count in lengths if count] for lengths in lengths_NR]
    return Flat(kept, (rows, width, groups, length), sources_V, places_V, positions.view(groups, length))


def flat_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    attend: Attend,
    segments: list[list[int]],
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each segment of each row: `attend` on slices, so that no mask over a row is made.

    `query`, `key` and `value` are [N, heads, S, head_dim]; returns [N, S, heads, head_dim], zero behind the segments.
    """
    rows = []
    # Rows with the same segments, as trials of a pack have them, attend together. Split and not sliced: the backward
    # pass then joins the parts' gradients once, where slices add one whole each.
    runs = [(lengths, len(list(alike))) for lengths, alike in groupby(segments)]
    splits = (torch.split(tensor, [count for _, count in runs]) for tensor in (query, key, value))
    for (lengths, _), *whole in zip(runs, *splits, strict=True):
        sizes = [*lengths, query.shape[2] - sum(lengths)]
        *parts, rest = zip(*(torch.split(tensor, sizes, dim=2) for tensor in whole), strict=True)
        states = [attend(module, *part, _inner_mask(part[0], sliding_window, attend), **more)[0] for part in parts]
        rows.append(torch.cat([*states, torch.zeros_like(rest[0]).transpose(1, 2)], dim=1))
    return torch.cat(rows), None


def _inner_mask(query: torch.Tensor, window: int | None, attend: Attend) -> torch.Tensor | None:
    # SDPA is causal by itself: it needs a mask only where a window ends inside the sequence.
    length = query.shape[2]
    added = attend is eager_attention_forward
    if not added and (window is None or window >= length):
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    if window is not None:
        seen = seen.triu(1 - window)
    if not added:
        return seen[None, None]
    return torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)[None, None]


def use_flat(model: PreTrainedModel) -> None:
    """Makes a model attend inside the segments that it is called with; the kernel stays the one it has.

    Raises ConfigError for an architecture that cannot.
    """
    reason = cannot_be_flat(model.config.model_type)
    if reason is not None:
        raise ConfigError(reason)
    kernel = model.config._attn_implementation
    name = f"{FLAT}{kernel}"
    AttentionInterface.register(name, partial(flat_attention, attend=KERNELS[kernel]))
    model.set_attn_implementation(name)
