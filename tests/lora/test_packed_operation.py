"""The batched update of a pack, against autograd over the same sum written out trial by trial."""

import pytest
import torch

from danube_sweep.lora.packed_operation import BatchLayout, GroupInBatch, Noise, Places, update

TRIALS, ROWS, LENGTH, INPUTS, OUTPUTS, RANK = 3, 2, 5, 8, 6, 2
NOISES = [Noise(0.5, 1, ROWS, LENGTH), None, Noise(0.25, 2, ROWS, LENGTH - 2)]


def gradients(output: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9))
    return list(torch.autograd.grad((output * weights).sum(), leaves))


@pytest.mark.parametrize("places", [slice(0, TRIALS), torch.arange(TRIALS)], ids=["side by side", "by number"])
@pytest.mark.parametrize("noises", [NOISES, []], ids=["dropout", "none"])
def test_output_and_every_gradient_are_those_of_autograd(places: Places, noises: list[Noise | None]) -> None:
    torch.manual_seed(0)
    sizes = [(TRIALS * ROWS, LENGTH, OUTPUTS), (TRIALS * ROWS, LENGTH, INPUTS), (TRIALS, RANK, INPUTS)]
    base, given, a, b = (torch.randn(size, requires_grad=True) for size in [*sizes, (TRIALS, OUTPUTS, RANK)])
    scale_n11 = torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1)
    layout = BatchLayout([GroupInBatch(places, places, scale_n11, noises)], TRIALS, torch.float32)
    ours = update(base.clone(), given, layout, [a, b])
    one_by_one = []
    for trial in range(TRIALS):
        rows = slice(trial * ROWS, (trial + 1) * ROWS)
        noise = noises[trial] if noises else None
        kept = given[rows] if noise is None else given[rows] * noise.factors(given[rows].shape, given.device)
        one_by_one.append(base[rows] + scale_n11[trial] * (kept @ a[trial].T @ b[trial].T))
    plain = torch.cat(one_by_one)
    torch.testing.assert_close(ours, plain)
    leaves = [base, given, a, b]
    for one, other in zip(gradients(ours, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(one, other)
