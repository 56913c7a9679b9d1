"""Answers of several finished runs over one backbone, to the same rows in one forward pass.

Axes: B rows, T tokens, H hidden width, N examples, A answers of an example.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from danube_sweep.config.schema import Comparison, Config
from danube_sweep.data.batches import Batch, Rows, budget_batches, collate
from danube_sweep.data.encode import encode
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.layout import Layout
from danube_sweep.data.records import Record, swapped
from danube_sweep.data.vocabulary import check_ids
from danube_sweep.errors import ConfigError
from danube_sweep.head.base_head import Head
from danube_sweep.inference.prediction_table import SHARES, Predictions
from danube_sweep.model.backbone import Backbone
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.pack.kept_rows import KeptRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

States = Callable[[Batch, torch.Tensor | None], Sequence[torch.Tensor]]
"""A batch in, with its states of an earlier run where they are kept; the final hidden states [B, T, H] of each run out.
"""


class Member(Protocol):
    """A finished run, loaded."""

    @property
    def config(self) -> Config: ...
    @property
    def backbone(self) -> Backbone: ...
    @property
    def head(self) -> Head: ...
    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase": ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def layout(self) -> Layout: ...


def joint_predictions(
    members: Sequence[Member],
    states: States,
    records: list[Record],
    *,
    swap: bool,
    batch_rows: int,
    kept: KeptRows | None = None,
    done: Callable[[int], None] = lambda _rows: None,
) -> list[Predictions]:
    """The answers of each run to some records. The runs read alike: the rows are encoded as for the first one.

    A forward pass takes the tokens of `batch_rows` rows of data.max_length, divided among the runs, so more short rows
    fit. Rows that are `kept` skip the blocks below the adapted ones. `done` is called with the rows of every forward
    pass, for each run. Raises ConfigError for `swap` without two answers to swap.
    """
    first = members[0]
    straight = _one_order(members, states, records, batch_rows, kept, done)
    if not swap:
        return straight
    if any(len(record.texts) != 3 for record in records) or not isinstance(first.config.data, Comparison):
        raise ConfigError("--swap needs two answers in every row, and this run reads single texts; leave it out")
    turned = _one_order(members, states, [swapped(record) for record in records], batch_rows, kept, done)
    order = [1, 0, *range(2, len(first.classes))]
    return [
        replace(one, answers_NA=(one.answers_NA + other.answers_NA[:, order]) / 2)
        for one, other in zip(straight, turned, strict=True)
    ]


def _one_order(
    members: Sequence[Member],
    states: States,
    records: list[Record],
    batch_rows: int,
    kept: KeptRows | None,
    done: Callable[[int], None],
) -> list[Predictions]:
    first = members[0]
    data = first.config.data
    rows = encode(records, first.tokenizer, data, first.layout, num_classes=len(first.classes))
    check_ids(rows, first.backbone.body.get_input_embeddings().num_embeddings, str(first.config.model.path))
    pad_id, device = int(first.tokenizer.pad_token_id), first.backbone.device
    heads = [member.head for member in members]
    places: list[torch.Tensor] = []
    answers: list[list[torch.Tensor]] = [[] for _ in members]
    with evaluating(first.backbone, *heads):
        for chosen, is_kept in _batches(rows, max(1, batch_rows * data.max_length // len(members)), kept):
            batch = collate(rows, chosen, pad_id).to(device)
            places.append(torch.from_numpy(rows.places(batch.rows)))
            stored_BTH = kept.batch(batch) if kept is not None and is_kept else None
            for head, gathered, states_BTH in zip(heads, answers, states(batch, stored_BTH), strict=True):
                found = head.answers(head(states_BTH, batch))
                assert found is not None
                gathered.append(found.double().cpu())
            done(len(batch.rows) * len(members))
    order_N = torch.cat(places).argsort()
    return [
        _in_order(member, rows, torch.cat(gathered)[order_N]) for member, gathered in zip(members, answers, strict=True)
    ]


def _batches(rows: Encoded, tokens: int, kept: KeptRows | None) -> Iterator[tuple[Rows, bool]]:
    """Every row once, in batches of at most so many tokens; those whose states are kept are in batches of their own."""
    everything = np.arange(len(rows.ids), dtype=np.int64)
    there, others = (everything[:0], everything) if kept is None else kept.divided(rows)
    for chosen, is_kept in ((there, True), (others, False)):
        for places in budget_batches(rows.lengths[chosen], tokens):
            yield chosen[places], is_kept


def _in_order(member: Member, rows: Encoded, answers_NA: torch.Tensor) -> Predictions:
    if member.config.head.target in SHARES:  # in fp32 they sum to 1 within 1e-7 only
        answers_NA = answers_NA / answers_NA.sum(dim=1, keepdim=True)
    return Predictions(rows.examples, answers_NA)
