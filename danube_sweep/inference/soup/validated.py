"""Many averages on the validation rows: a pack over one backbone answers for all of them in one pass.

Axes: N examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from danube_sweep.config.facts.architectures import first_adapted
from danube_sweep.config.schema import Config, Lora
from danube_sweep.data.batches import Batch, budget_batches, collate
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import CheckpointError
from danube_sweep.inference.predict import FinishedRun, Place, load_backbone_of
from danube_sweep.inference.soup.average import Average
from danube_sweep.lora import PackedAdapters
from danube_sweep.results.answers import Codes
from danube_sweep.storage.predictions import Floats
from danube_sweep.training.assemble import AssembledModel, assemble
from danube_sweep.training.evaluate import Evaluation, evaluate_together
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.prepare import Prepared, prepare


def soup_config(first: Config, rank: int) -> Config:
    """The config that loads an average: its scale is 1, as each trial's is in its factors."""
    adapter = first.lora
    assert isinstance(adapter, Lora)
    return replace(first, lora=replace(adapter, rank=rank, alpha=float(rank), rslora=False), name=None)


class Validation:
    """The backbone of the ingredients, loaded once, and their validation rows.

    Raises the errors of `load_backbone_of` and `prepare`, and CheckpointError without validation rows.
    """

    def __init__(self, first: FinishedRun, place: Place, batch_rows: int) -> None:
        self._config, self.backbone = load_backbone_of(first, place)
        self.prepared: Prepared = prepare(self._config)
        if "validation" not in self.prepared.parts:
            raise CheckpointError(f"{first.path}: no rows validate it; give trials with validation rows")
        self._adapters, self._prefix = PackedAdapters(self.backbone), SharedPrefix(self.backbone)
        self._batch_rows = batch_rows

    @property
    def rows(self) -> Encoded:
        return self.prepared.parts["validation"]

    @property
    def groups_N(self) -> Codes:
        """The group of each example; without groups each is its own."""
        groups_N = self.rows.example_groups
        if groups_N is None:
            return np.arange(len(self.rows.examples))
        return np.unique(groups_N, return_inverse=True)[1].astype(np.int64)

    def evaluated(self, averages: Sequence[Average]) -> list[Evaluation]:
        """The evaluation of each average, in one pass over the rows."""
        order = sorted(range(len(averages)), key=lambda place: averages[place].rank)
        models = [self.assembled(averages[place]) for place in order]
        self._adapters.arrange([model.packed for model in models])
        states = partial(self._states, len(models), first_adapted(models[0].config.lora, self._prefix.blocks))
        data = self._config.data
        places = budget_batches(self.rows.lengths, max(1, self._batch_rows * data.max_length // len(models)))
        pad_id = self.prepared.pad_id
        batches = (collate(self.rows, chosen, pad_id).to(self.backbone.device) for chosen in places)
        found = evaluate_together(
            self.backbone, [model.head for model in models], self.rows, hidden=states, batches=batches
        )
        by_place = dict(zip(order, found, strict=True))
        return [by_place[place] for place in range(len(averages))]

    def assembled(self, average: Average) -> AssembledModel:
        """The adapter and the head of an average over the backbone."""
        config = soup_config(self._config, average.rank)
        model = assemble(
            config,
            self.backbone,
            classes=self.prepared.classes,
            tokenizer=self.prepared.tokenizer,
            adapters=self._adapters,
        )
        packed = model.packed
        assert packed is not None
        packed.load(self.backbone, _state(average))
        model.head.load_state_dict(average.head)
        return model

    def _states(self, count: int, from_block: int, batch: Batch) -> list[torch.Tensor]:
        # All of them adapt the same linears, so the blocks below run once for all.
        self._adapters.expect(range(count), {})
        hidden_BTH = self._prefix.hidden(batch.input_ids_BT, batch.mask_BT, [0] * count, from_block=from_block)
        return list(torch.split(hidden_BTH, len(batch.mask_BT)))


def _state(average: Average) -> dict[str, torch.Tensor]:
    named = {}
    for name, (a_RI, b_OR) in average.adapter.items():
        named[f"{name}.lora_A.weight"], named[f"{name}.lora_B.weight"] = a_RI, b_OR
    return named


def losses_of(found: Evaluation) -> Floats:
    """The loss of each example."""
    return found.losses_N.double().numpy()
