"""Evaluation of trials on one part, in eval mode and back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from danube_sweep.config.facts.evaluation import eval_tokens
from danube_sweep.config.schema import Config
from danube_sweep.data.batches import Batch, Rows, budget_batches, collate, eval_batches
from danube_sweep.data.encoded import Encoded
from danube_sweep.head.base_head import Head
from danube_sweep.model.backbone import Backbone
from danube_sweep.training.metrics import measure
from danube_sweep.training.ranks import ALONE, Ranks


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


Gathered = tuple[list[torch.Tensor], list[torch.Tensor]]
"""The losses and the answers of a trial, by batch."""

Hidden = Callable[[Batch], Sequence[torch.Tensor]]
"""A batch in, the hidden states [B, T, H] of every trial that is evaluated out."""


def evaluate_together(
    backbone: Backbone,
    heads: Sequence[Head],
    rows: Encoded,
    *,
    hidden: Hidden,
    batches: Iterable[Batch],
    alive: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
    beside: Iterable[Batch] = (),
) -> list[Evaluation]:
    """The evaluations of several trials on the same rows; `hidden` gives each one's states of a batch.

    `batches` are this rank's; the evaluations are of those of all `ranks`. The leading one has the metrics.
    `beside` pass through the backbone for nothing but the other ranks, which share its weights.
    """
    places: list[torch.Tensor] = []
    gathered: list[Gathered] = [([], []) for _ in heads]
    with evaluating(backbone, *heads):
        for batch in batches:
            places.append(torch.from_numpy(rows.places(batch.rows)))
            for head, (losses, answers), states_BTH in zip(heads, gathered, hidden(batch), strict=True):
                output = head(states_BTH, batch)
                losses.append(head.example_losses(output, batch).float())
                found = head.answers(output)
                answers += [] if found is None else [found.float()]
            alive()
        for batch in beside:
            hidden(batch)
    gathered = [(_on_cpu(losses), _on_cpu(answers)) for losses, answers in gathered]
    if ranks.count > 1:
        shares = ranks.each((places, gathered))
        places = [one for own, _ in shares for one in own]
        gathered = [_joined([own[place] for _, own in shares]) for place in range(len(heads))]
    order_N = torch.cat(places).argsort()
    evaluations = []
    for head, (losses, answers) in zip(heads, gathered, strict=True):
        losses_N = torch.cat(losses)[order_N]
        answers_NA = torch.cat(answers)[order_N] if answers else None
        metrics = measure(head.target, head.classes, answers_NA, losses_N, rows.truth) if ranks.leads else {}
        evaluations.append(Evaluation(losses_N, answers_NA, metrics))
    return evaluations


def _on_cpu(parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    # From the device once, and not after every batch.
    return [torch.cat([*parts]).cpu()] if parts else []


def _joined(shares: Sequence[Gathered]) -> Gathered:
    return [one for losses, _ in shares for one in losses], [one for _, answers in shares for one in answers]


def eval_batches_of(rows: Encoded, batch_rows: int, pad_id: int, backbone: Backbone) -> Iterator[Batch]:
    """Every row once, on the backbone's device, longest first."""
    for chosen in eval_batches(rows.lengths, batch_rows):
        yield collate(rows, chosen, pad_id).to(backbone.device)


def evaluation_batches(
    config: Config, rows: Encoded, pad_id: int, backbone: Backbone, ranks: Ranks = ALONE
) -> Iterator[Batch]:
    """Every row once, as `config` evaluates them: as many at a time as have its tokens, or trainer.eval_batch rows.

    Of several `ranks` each has its share of the batches.
    """
    for chosen in _divided(config, rows, backbone)[ranks.rank :: ranks.count]:
        yield collate(rows, chosen, pad_id).to(backbone.device)


def batches_beside(config: Config, rows: Encoded, pad_id: int, backbone: Backbone, ranks: Ranks) -> Iterator[Batch]:
    """What a rank with fewer of the `evaluation_batches` runs, where all must pass through the backbone together."""
    batches = _divided(config, rows, backbone) if backbone.sharded else []
    if len(batches) % ranks.count and ranks.rank >= len(batches) % ranks.count:
        yield collate(rows, batches[-1], pad_id).to(backbone.device)


def _divided(config: Config, rows: Encoded, backbone: Backbone) -> list[Rows]:
    lengths, at_once = rows.lengths, config.trainer.eval_batch
    if at_once is not None:
        return eval_batches(lengths, at_once)
    return budget_batches(lengths, eval_tokens(config, int(lengths.max()), on_cpu=backbone.device.type == "cpu"))


def forward(
    backbone: Backbone, head: Head, rows: Encoded, *, batch_rows: int, pad_id: int
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yields each batch and the head's output, without gradients and in eval mode."""
    with evaluating(backbone, head):
        for batch in eval_batches_of(rows, batch_rows, pad_id, backbone):
            yield batch, head(_alone(backbone, batch)[0], batch)


def _alone(backbone: Backbone, batch: Batch) -> list[torch.Tensor]:
    return [backbone.hidden(batch.input_ids_BT, batch.mask_BT)]


@contextmanager
def evaluating(backbone: Backbone, *heads: Head) -> Iterator[None]:
    """Inside: eval mode and no gradients. Afterwards every module is in its earlier mode, so blocks can be nested."""
    modules = [*backbone.modules(), *heads]
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)
