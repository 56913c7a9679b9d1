"""Evaluation of one trial on one part, in eval mode and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from danube_sweep.data.batches import Batch, collate, eval_batches
from danube_sweep.data.encode import Encoded
from danube_sweep.head import Head, LanguageModel
from danube_sweep.metrics import classification_metrics
from danube_sweep.model import Backbone


@dataclass(frozen=True)
class Evaluation:
    """`losses_N` in nats per row; `probabilities_NC` for classifiers; `metrics` over all rows."""

    losses_N: torch.Tensor
    probabilities_NC: torch.Tensor | None
    metrics: dict[str, float]

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {"losses": self.losses_N, "probabilities": self.probabilities_NC}
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
    """Losses, probabilities and metrics of every row, in the rows' order; `alive` is called after every batch."""
    losses_N = torch.zeros(len(rows.ids))
    probabilities: list[tuple[Batch, torch.Tensor]] = []
    for batch, output in forward(backbone, head, rows, batch_rows=batch_rows, pad_id=pad_id):
        losses_N[batch.rows] = head.row_losses(output, batch).float().cpu()
        alive()
        if not isinstance(head, LanguageModel):
            probabilities.append((batch, output.float().softmax(dim=-1).cpu()))
    if isinstance(head, LanguageModel):
        weights_N = torch.from_numpy(rows.weights)
        mean = float((losses_N * weights_N).sum() / weights_N.sum())
        return Evaluation(losses_N, None, {"log_loss": mean, "perplexity": float(torch.tensor(mean).exp())})
    probabilities_NC = torch.empty(len(rows.ids), probabilities[0][1].shape[1])
    for batch, values in probabilities:
        probabilities_NC[batch.rows] = values
    assert rows.labels is not None
    return Evaluation(
        losses_N, probabilities_NC, classification_metrics(probabilities_NC, torch.from_numpy(rows.labels))
    )


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
