"""Evaluation of one trial on one part, in eval mode and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from danube_sweep.data.batches import Batch, collate, eval_batches
from danube_sweep.data.encoded import Encoded
from danube_sweep.head import Head
from danube_sweep.metrics import measure
from danube_sweep.model import Backbone


@dataclass(frozen=True)
class Evaluation:
    """A loss and an answer per example, in the order of `Encoded.examples`; `metrics` over them all."""

    losses_N: torch.Tensor
    answers_NA: torch.Tensor | None
    """Probabilities, or a number; None in language modelling."""
    metrics: dict[str, float]

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {"losses": self.losses_N, "answers": self.answers_NA}
        return {name: value for name, value in named.items() if value is not None}


def evaluate(
    backbone: Backbone,
    head: Head,
    rows: Encoded,
    *,
    batch_rows: int,
    pad_id: int,
    alive: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Losses, answers and metrics of every example; `alive` is called after every batch."""
    places: list[torch.Tensor] = []
    losses: list[torch.Tensor] = []
    answers: list[torch.Tensor] = []
    for batch, output in forward(backbone, head, rows, batch_rows=batch_rows, pad_id=pad_id):
        places.append(torch.from_numpy(rows.places(batch.rows)))
        losses.append(head.example_losses(output, batch).float().cpu())
        found = head.answers(output)
        answers += [] if found is None else [found.float().cpu()]
        alive()
    order_N = torch.cat(places).argsort()
    losses_N = torch.cat(losses)[order_N]
    answers_NA = torch.cat(answers)[order_N] if answers else None
    return Evaluation(losses_N, answers_NA, measure(head.target, head.classes, answers_NA, losses_N, rows.truth))


def forward(
    backbone: Backbone, head: Head, rows: Encoded, *, batch_rows: int, pad_id: int
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yields each batch and the head's output, without gradients and in eval mode."""
    with evaluating(backbone, head):
        for chosen in eval_batches(rows.lengths, batch_rows):
            batch = collate(rows, chosen, pad_id).to(backbone.device)
            yield batch, head(backbone.hidden(batch.input_ids_BT, batch.mask_BT), batch)


@contextmanager
def evaluating(backbone: Backbone, head: Head) -> Iterator[None]:
    """Eval mode and no gradients inside; train mode again after it."""
    modules = [*backbone.modules(), head]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in modules:
            module.train()
