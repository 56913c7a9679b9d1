"""The update that the adapters of a pack add to one linear, all trials in a few batched products.

Axes: N trials of the batch, n trials of a group, M tokens of a trial, I inputs, O outputs, R rank of a group.

Per linear it keeps for the backward pass the linear's own input, which others keep too, and the rank-sized activation:
16H + 8I bytes per token and layer where PEFT's layers keep 36H + 10I (H hidden, I intermediate, 16-bit arithmetic).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

Places = slice | torch.Tensor
"""The positions of trials in a batch or stack: a slice if they are adjacent, otherwise their numbers."""


@dataclass(frozen=True)
class DrawnFor:
    """The rows and tokens that a dropout is drawn for, where a rank has only some of the rows."""

    rows: int
    length: int
    taken: torch.Tensor
    """The numbers of the rows that it has."""


@dataclass(frozen=True)
class Noise:
    """A trial's dropout before its adapter: a function of its seed, so that the backward pass draws it again.

    It is drawn for padded rows, also where they are laid flat, which depends on whom a trial shares a backbone with.
    """

    share: float
    seed: int
    rows: int
    length: int
    """The trial's own rows and tokens of the batch: padding for others' longer rows gets no draw."""
    whole: DrawnFor | None = None
    """What is drawn, if that is more."""
    flat: torch.Tensor | None = None
    """Of rows that are laid flat, the places of their tokens among all rows * length."""

    def factors(self, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """The factors of a trial's inputs [rows, tokens, I]: 0 or 1 / (1 - share). Flat rows are one row."""
        generator = torch.Generator(device).manual_seed(self.seed)
        drawn = (self.rows, self.length) if self.whole is None else (self.whole.rows, self.whole.length)
        kept = torch.rand((*drawn, shape[-1]), generator=generator, device=device) >= self.share
        if self.whole is not None:
            kept = kept.index_select(0, self.whole.taken)[:, : self.length]
        if self.flat is not None:
            kept = kept.flatten(0, 1).index_select(0, self.flat).unsqueeze(0)
        factors = torch.ones(shape, device=device)
        factors[: kept.shape[0], : kept.shape[1]] = kept / (1 - self.share)
        return factors


@dataclass(frozen=True)
class GroupInBatch:
    """The trials of one group that are in the batch: where in the group's stacks, and where in the batch."""

    stack: Places
    batch: Places
    scale_n11: torch.Tensor
    noises: Sequence[Noise | None] = ()
    """One per trial of the part; empty without dropout."""


@dataclass(frozen=True)
class BatchLayout:
    """How a batch of `trials` equal shares of rows meets the groups' stacks; products are taken in `dtype`."""

    parts: Sequence[GroupInBatch]
    trials: int
    dtype: torch.dtype


@final
class _Update(torch.autograd.Function):
    """base + scale * dropout(given) A^T B^T, in place of base. Stacks: A [n, R, I], B [n, O, R] of every part."""

    @staticmethod
    def forward(
        ctx: Any, base: torch.Tensor, given: torch.Tensor, layout: BatchLayout, *stacks: torch.Tensor
    ) -> torch.Tensor:
        base_NMO = base.view(layout.trials, -1, base.shape[-1])
        given_NMI = _by_trial(given, layout.trials)
        ranked = []
        for part, a_NRI, b_NOR in _with_stacks(layout, stacks):
            input_nMI = _dropped(given_NMI, part, given.shape, layout)
            ranked_nMR = torch.bmm(input_nMI, a_NRI[part.stack].to(layout.dtype).transpose(1, 2)).mul_(part.scale_n11)
            b_nRO = b_NOR[part.stack].to(layout.dtype).transpose(1, 2)
            if isinstance(part.batch, slice) and base.dtype is layout.dtype:
                base_NMO[part.batch].baddbmm_(ranked_nMR, b_nRO)
            else:
                base_NMO[part.batch] += torch.bmm(ranked_nMR, b_nRO)
            ranked.append(ranked_nMR)
        ctx.layout = layout
        ctx.save_for_backward(given, *ranked, *stacks)
        ctx.mark_dirty(base)
        return base

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layout: BatchLayout = ctx.layout
        given, *rest = ctx.saved_tensors
        ranked, stacks = rest[: len(layout.parts)], rest[len(layout.parts) :]
        gradient_NMO, given_NMI = _by_trial(gradient, layout.trials), _by_trial(given, layout.trials)
        wanted = ctx.needs_input_grad[1]
        of_given_NMI: torch.Tensor | None = None
        of_stacks: list[torch.Tensor | None] = []
        for (part, a_NRI, b_NOR), ranked_nMR in zip(_with_stacks(layout, stacks), ranked, strict=True):
            of_output_nMO = gradient_NMO[part.batch].to(layout.dtype)
            of_ranked_nMR = torch.bmm(of_output_nMO, b_NOR[part.stack].to(layout.dtype)).mul_(part.scale_n11)
            input_nMI = _dropped(given_NMI, part, given.shape, layout)
            of_stacks.append(_into_stack(torch.bmm(of_ranked_nMR.transpose(1, 2), input_nMI), part, a_NRI))
            of_stacks.append(_into_stack(torch.bmm(of_output_nMO.transpose(1, 2), ranked_nMR), part, b_NOR))
            if wanted:
                through_nMI = torch.bmm(of_ranked_nMR, a_NRI[part.stack].to(layout.dtype))
                through_nMI = _masked(through_nMI, part, given.shape, layout).to(given.dtype)
                if isinstance(part.batch, slice) and len(through_nMI) == layout.trials:
                    of_given_NMI = through_nMI
                    continue
                of_given_NMI = torch.zeros_like(given_NMI) if of_given_NMI is None else of_given_NMI
                of_given_NMI[part.batch] = through_nMI
        of_given = None if of_given_NMI is None else of_given_NMI.view(given.shape)
        return gradient, of_given, None, *of_stacks


def update(
    base: torch.Tensor, given: torch.Tensor, layout: BatchLayout, stacks: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The linear's output `base` [rows, tokens, O] with every trial's update added in place.

    `given` [rows, tokens, I] is the linear's input, the rows of the trials one after the other; `stacks` holds A and B
    of every part in turn, fp32. docs/decisions/012 has the numbers.
    """
    result: torch.Tensor = _Update.apply(base, given, layout, *stacks)  # type: ignore[no-untyped-call]
    return result


def _with_stacks(
    layout: BatchLayout, stacks: Sequence[torch.Tensor]
) -> list[tuple[GroupInBatch, torch.Tensor, torch.Tensor]]:
    return list(zip(layout.parts, stacks[0::2], stacks[1::2], strict=True))


def _by_trial(values: torch.Tensor, trials: int) -> torch.Tensor:
    return values.reshape(trials, -1, values.shape[-1])


def _dropped(given_NMI: torch.Tensor, part: GroupInBatch, shape: torch.Size, layout: BatchLayout) -> torch.Tensor:
    return _masked(given_NMI[part.batch].to(layout.dtype), part, shape, layout)


def _masked(values_nMI: torch.Tensor, part: GroupInBatch, shape: torch.Size, layout: BatchLayout) -> torch.Tensor:
    if not any(part.noises):
        return values_nMI
    own = torch.Size((shape[0] // layout.trials, *shape[1:]))
    masked = [
        one if noise is None else (one * noise.factors(own, one.device).view_as(one)).to(one.dtype)
        for one, noise in zip(values_nMI, part.noises, strict=True)
    ]
    return torch.stack(masked)


def _into_stack(gradient: torch.Tensor, part: GroupInBatch, stack: torch.Tensor) -> torch.Tensor:
    if len(gradient) == len(stack):  # the whole group is in the batch, in its own order
        return gradient.to(stack.dtype)
    whole = torch.zeros_like(stack)
    whole[part.stack] = gradient.to(stack.dtype)
    return whole
