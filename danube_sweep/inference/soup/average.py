"""The mean of several LoRA updates and heads.

An update is scale * B A. The mean of m updates is again one product: A holds the rows of all, B the columns of all,
each times its scale / m. So it is exact, of the summed rank. Cut back to a lower rank it is the nearest matrix of that
rank (Eckart and Young 1936), found from the small factors alone. Axes: R rank, I inputs, O outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from danube_sweep.inference.soup.ingredients import Ingredient

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Average:
    """A [R, I] and B [O, R] of each linear, whose product is the update itself, and the weights of the head."""

    adapter: Pairs
    head: dict[str, torch.Tensor]

    @property
    def rank(self) -> int:
        return len(next(iter(self.adapter.values()))[0])


def average(ingredients: Sequence[Ingredient]) -> Average:
    """The exact mean of trials that can be averaged."""
    count = len(ingredients)
    adapter: Pairs = {}
    for name in ingredients[0].adapter:
        a_RI = torch.cat([one.adapter[name][0] for one in ingredients])
        b_OR = torch.cat([one.adapter[name][1] * (one.scale / count) for one in ingredients], dim=1)
        adapter[name] = a_RI, b_OR
    head = {name: _mean([one.head[name] for one in ingredients]) for name in ingredients[0].head}
    return Average(adapter, head)


def _mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    if not values[0].is_floating_point():  # the tokens of label words, which are the same for all
        return values[0]
    return torch.stack([one.double() for one in values]).mean(dim=0).to(values[0].dtype)


def cut(whole: Average, rank: int) -> tuple[Average, float]:
    """The nearest update of a lower rank, and the share of the squared norm that is lost, over all linears."""
    adapter: Pairs = {}
    lost = total = 0.0
    for name, (a_RI, b_OR) in whole.adapter.items():
        left_OR, inner_left = torch.linalg.qr(b_OR.double())
        right_IR, inner_right = torch.linalg.qr(a_RI.double().T)
        u, values_R, vh = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
        kept = values_R[:rank].sqrt()
        b_cut, a_cut = left_OR @ u[:, :rank] * kept, (kept[:, None] * vh[:rank]) @ right_IR.T
        adapter[name] = _padded(a_cut.float(), rank, 0), _padded(b_cut.float(), rank, 1)
        total += float(values_R.square().sum())
        lost += float(values_R[rank:].square().sum())
    return Average(adapter, whole.head), lost / total if total else 0.0


def _padded(matrix: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    # A linear that is narrower than the rank has fewer singular values; the rest of the rank is zero.
    missing = rank - matrix.shape[dim]
    if missing <= 0:
        return matrix
    shape = list(matrix.shape)
    shape[dim] = missing
    return torch.cat([matrix, torch.zeros(shape)], dim=dim)
