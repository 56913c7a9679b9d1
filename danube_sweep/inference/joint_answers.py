"""Answers of several finished runs over one backbone, to the same rows in one forward pass.

Processes may divide the forward passes among them. Axes: B rows, T tokens, H hidden width, N examples, K those of them
that one process has answered, A answers of an example.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from danube_sweep.config.schema import Comparison, Config
from danube_sweep.data.batches import Batch, Rows, budget_batches, collate
from danube_sweep.data.encode import encode
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.layout import Layout
from danube_sweep.data.records import Record, swapped
from danube_sweep.data.vocabulary import check_ids
from danube_sweep.errors import CheckpointError, ConfigError
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


class Answering(Protocol):
    """A finished run, whether loaded or not."""

    @property
    def config(self) -> Config: ...
    @property
    def classes(self) -> list[str]: ...


class Member(Answering, Protocol):
    """A finished run, loaded."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def head(self) -> Head: ...
    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase": ...
    @property
    def layout(self) -> Layout: ...


@dataclass(frozen=True)
class Turn:
    """The forward passes that one of `count` processes takes: every `count`-th, from its number on."""

    number: int = 0
    count: int = 1


EVERY: Final = Turn()
"""All forward passes."""


@dataclass(frozen=True)
class Answered:
    """The answers to some examples in one order of their texts. Arrays, as tensors would pass by shared memory."""

    places_K: npt.NDArray[np.int64]
    answers_KA: list[npt.NDArray[np.float64]]
    """Of each run; none where no forward pass was taken."""


@dataclass(frozen=True)
class Taken:
    """What a process has answered in its turn: of all these examples some, in one order or in both."""

    examples: list[str]
    orders: list[Answered]

    def arranged(self, places: Sequence[int]) -> "Taken":
        """With the answers of each run at its place among `places`."""
        at = np.argsort(places)
        orders = [replace(one, answers_KA=[one.answers_KA[number] for number in at]) if one.answers_KA else one
                  for one in self.orders]  # fmt: skip
        return replace(self, orders=orders)


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
    taken = taken_in(members, states, records, EVERY, swap=swap, batch_rows=batch_rows, kept=kept, done=done)
    return joined(members, [taken])


def taken_in(
    members: Sequence[Member],
    states: States,
    records: list[Record],
    turn: Turn,
    *,
    swap: bool,
    batch_rows: int,
    kept: KeptRows | None = None,
    done: Callable[[int], None] = lambda _rows: None,
) -> Taken:
    """The answers of a turn: `joint_predictions` before they are joined. Raises ConfigError as that does."""
    comparisons = isinstance(members[0].config.data, Comparison)
    if swap and (any(len(record.texts) != 3 for record in records) or not comparisons):
        raise ConfigError("--swap needs two answers in every row, and this run reads single texts; leave it out")
    orders = [records, [swapped(record) for record in records]] if swap else [records]
    found = [_one_order(members, states, order, batch_rows, kept, done, turn) for order in orders]
    return Taken(found[0][0].examples, [answered for _, answered in found])


def joined(runs: Sequence[Answering], taken: Sequence[Taken]) -> list[Predictions]:
    """The predictions of each run, from the turns of all processes. Both orders are averaged.

    Raises CheckpointError if the processes divided the rows in different ways.
    """
    examples, orders = taken[0].examples, len(taken[0].orders)
    straight, *turned = [_one_of(runs, [one.orders[order] for one in taken], examples) for order in range(orders)]
    if not turned:
        return straight
    return [
        replace(one, answers_NA=(one.answers_NA + other.answers_NA[:, [1, 0, *range(2, len(run.classes))]]) / 2)
        for run, one, other in zip(runs, straight, turned[0], strict=True)
    ]


def _one_of(runs: Sequence[Answering], parts: Sequence[Answered], examples: list[str]) -> list[Predictions]:
    parts = [part for part in parts if part.answers_KA]
    places_N = np.concatenate([part.places_K for part in parts])
    order_N = places_N.argsort()
    if not np.array_equal(places_N[order_N], np.arange(len(examples))):
        raise CheckpointError(
            "the devices divided the rows in different ways, as states that data.cache_prefix had kept were removed "
            "meanwhile; the same command goes on"
        )
    return [
        _normal(run, examples, torch.from_numpy(np.concatenate([part.answers_KA[number] for part in parts])[order_N]))
        for number, run in enumerate(runs)
    ]


def _one_order(
    members: Sequence[Member],
    states: States,
    records: list[Record],
    batch_rows: int,
    kept: KeptRows | None,
    done: Callable[[int], None],
    turn: Turn,
) -> tuple[Encoded, Answered]:
    first = members[0]
    data = first.config.data
    rows = encode(records, first.tokenizer, data, first.layout, num_classes=len(first.classes))
    check_ids(rows, first.backbone.body.get_input_embeddings().num_embeddings, str(first.config.model.path))
    pad_id, device = int(first.tokenizer.pad_token_id), first.backbone.device
    heads = [member.head for member in members]
    batches = _batches(rows, max(1, batch_rows * data.max_length // len(members)), kept)
    places: list[Any] = []
    answers: list[list[npt.NDArray[np.float64]]] = [[] for _ in members]
    with evaluating(first.backbone, *heads):
        for chosen, is_kept in islice(batches, turn.number, None, turn.count):
            batch = collate(rows, chosen, pad_id).to(device)
            places.append(rows.places(batch.rows))
            stored_BTH = kept.batch(batch) if kept is not None and is_kept else None
            for head, gathered, states_BTH in zip(heads, answers, states(batch, stored_BTH), strict=True):
                found = head.answers(head(states_BTH, batch))
                assert found is not None
                gathered.append(found.double().cpu().numpy())
            done(len(batch.rows) * len(members))
    if not places:  # fewer forward passes than processes
        return rows, Answered(np.empty(0, dtype=np.int64), [])
    return rows, Answered(np.concatenate(places), [np.concatenate(gathered) for gathered in answers])


def _batches(rows: Encoded, tokens: int, kept: KeptRows | None) -> Iterator[tuple[Rows, bool]]:
    """Every row once, in batches of at most so many tokens; those whose states are kept are in batches of their own."""
    everything = np.arange(len(rows.ids), dtype=np.int64)
    there, others = (everything[:0], everything) if kept is None else kept.divided(rows)
    for chosen, is_kept in ((there, True), (others, False)):
        for places in budget_batches(rows.lengths[chosen], tokens):
            yield chosen[places], is_kept


def _normal(run: Answering, examples: list[str], answers_NA: torch.Tensor) -> Predictions:
    if run.config.head.target in SHARES:  # in fp32 they sum to 1 within 1e-7 only
        answers_NA = answers_NA / answers_NA.sum(dim=1, keepdim=True)
    return Predictions(examples, answers_NA)
