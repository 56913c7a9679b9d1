"""The shared prefix: blocks below the first adapted one are frozen, so trials that read the same rows run them once.

Axes: U rows that differ, B rows of all trials, T tokens, H hidden width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, final

import torch
from torch import nn

from danube_sweep.model.backbone import Backbone
from danube_sweep.model.sharded import blocks_of
from danube_sweep.model.unpadded import flatten

MASKS: Final = 1
"""How many arguments after the hidden states are repeated with them: an encoder's block takes its mask by place."""
SPREAD: Final = ("attention_mask", "position_ids", "position_embeddings", "segments")
"""Named arguments of a decoder's block that have a row for every row of the batch, or one for all."""


@final
class SharedPrefix:
    """Runs a backbone whose rows are repeated from some block on. One per backbone: it stays hooked to the blocks."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._blocks = blocks_of(backbone.body)
        self._from_block = len(self._blocks)
        self._rows: torch.Tensor | None = None
        """Which of the body's rows each one is, from `_from_block` on: a flat row holds a whole group."""
        self._rows_before = 0
        self._spread: dict[int, tuple[Any, Any]] = {}
        for number, block in enumerate(self._blocks):
            block.register_forward_pre_hook(self._hook(number), with_kwargs=True)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self._blocks)

    def hidden(
        self,
        ids_UT: torch.Tensor,
        mask_UT: torch.Tensor,
        groups_N: Sequence[int],
        *,
        from_block: int,
        stored_UTH: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Final hidden states [B, T, H] of the trials' equal groups of rows, one after the other.

        Before `from_block` there are fewer groups of rows, those of ids_UT, and trial i reads group groups_N[i] of
        them. `stored_UTH` are the inputs of that block, if they are known: then no block before it is run. After the
        last block (`from_block` = their number) they are the final states.
        """
        groups = max(groups_N) + 1
        rows = _rows_of(groups_N, len(ids_UT) // groups, ids_UT.device)
        if from_block == self.blocks and stored_UTH is not None:
            return stored_UTH[rows]
        repeats = list(groups_N) != list(range(groups)) and from_block < self.blocks
        self._expect(groups_N if repeats else None, rows, from_block, groups)
        given: dict[str, Any] = {"groups": groups, "rows": rows if repeats else None}
        if stored_UTH is None:
            hidden_BTH = self._backbone.hidden(ids_UT, mask_UT, **given)
        else:
            with self._starting_from(stored_UTH, mask_UT, groups):
                hidden_BTH = self._backbone.hidden(ids_UT, mask_UT, **given)
        return hidden_BTH if len(hidden_BTH) == len(rows) else hidden_BTH[rows]

    def states_before(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, block: int) -> torch.Tensor:
        """The inputs of a block [B, T, H], or the final states after the last one; no block after it is run."""
        self._rows = None
        if block == self.blocks:
            return self._backbone.hidden(ids_BT, mask_BT)
        seen: list[torch.Tensor] = []

        def take(_module: nn.Module, given: tuple[torch.Tensor, ...], _named: dict[str, Any]) -> None:
            seen.append(given[0])
            raise _Enough

        hook = self._blocks[block].register_forward_pre_hook(take, with_kwargs=True)
        try:
            self._backbone.hidden(ids_BT, mask_BT)
        except _Enough:
            return flatten(mask_BT).unlay(seen[0]) if self._backbone.flat else seen[0]
        finally:
            hook.remove()
        raise AssertionError(f"block {block} was not reached")

    def _expect(self, groups_N: Sequence[int] | None, rows: torch.Tensor, from_block: int, groups: int) -> None:
        # Kept until the next forward pass: the backward pass may run blocks, and so the hooks, again.
        self._from_block, self._spread, self._rows = from_block, {}, None
        if groups_N is not None:
            flat = self._backbone.flat
            self._rows = torch.tensor(groups_N, device=rows.device) if flat else rows
            self._rows_before = groups if flat else len(rows) // len(groups_N) * groups

    @contextmanager
    def _starting_from(self, stored_UTH: torch.Tensor, mask_UT: torch.Tensor, groups: int) -> Iterator[None]:
        states = flatten(mask_UT, groups).lay(stored_UTH) if self._backbone.flat else stored_UTH
        encoder = hasattr(self._backbone.body, "encoder")  # its blocks also return their attention
        skipped = self._blocks[: self._from_block]
        for number, block in enumerate(skipped):
            block.forward = partial(_skipped, states if number == 0 else None, encoder)
        try:
            yield
        finally:
            for block in skipped:
                del block.forward

    def _hook(self, number: int) -> Any:
        def spread(_block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if self._rows is None or number < self._from_block:
                return None
            hidden, *more = given
            hidden = hidden[self._rows] if len(hidden) == self._rows_before else hidden
            more[:MASKS] = [self._repeated(one) for one in more[:MASKS]]
            return (hidden, *more), {
                name: self._repeated(one) if name in SPREAD else one for name, one in named.items()
            }

        return spread

    def _repeated(self, value: Any) -> Any:
        assert self._rows is not None
        match value:
            case tuple():
                return tuple(self._repeated(one) for one in value)
            case list() if len(value) == self._rows_before:
                return [value[row] for row in self._rows.tolist()]
            case torch.Tensor() if len(value) == self._rows_before > 1:  # one row is for all as it is
                if id(value) not in self._spread:  # the blocks share it; held, so that no other takes its place
                    self._spread[id(value)] = value, value[self._rows]
                return self._spread[id(value)][1]
        return value


class _Enough(Exception):
    """Ends a forward pass at the block whose inputs were wanted."""


def _skipped(states: torch.Tensor | None, encoder: bool, given: torch.Tensor, *_: Any, **__: Any) -> Any:
    out = given if states is None else states
    return (out, None) if encoder else out


def _rows_of(groups: Sequence[int], height: int, device: torch.device) -> torch.Tensor:
    return torch.cat([torch.arange(height, device=device) + group * height for group in groups])
