"""Finished runs over one backbone, loaded together: the backbone once, and every run's adapter and head on it.

Axes: B rows, T tokens, H hidden width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from danube_sweep.config.facts.adapters import shares_backbone
from danube_sweep.config.facts.architectures import first_adapted
from danube_sweep.config.schema import Config, Data
from danube_sweep.config.tokenizer_identity import WHOLE, tokenizer_identity
from danube_sweep.data.batches import Batch
from danube_sweep.errors import ModelError
from danube_sweep.inference.predict import FinishedRun, Place, Trained, load_backbone_of, moved, put_over
from danube_sweep.lora import PackedAdapters
from danube_sweep.model.backbone import architecture
from danube_sweep.training.pack.kept_rows import KeptRows
from danube_sweep.training.pack.shared_prefix import SharedPrefix
from danube_sweep.training.resume import ARITHMETIC

_READING = ("max_length", "truncation", "layout", "overlap")
"""Fields of the data that decide the tokens of a record, beside the columns that it is read from."""


@dataclass(frozen=True)
class Pack:
    """Runs that answer together, in the order of their adapters' ranks."""

    members: list[Trained]
    places: list[int]
    """Where each member stands among the runs that were given."""
    adapters: PackedAdapters
    prefix: SharedPrefix

    @property
    def from_block(self) -> int:
        """The first adapted block, or their number."""
        return min(first_adapted(one.config.lora, self.prefix.blocks) for one in self.members)

    def states(self, batch: Batch, stored_BTH: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Each member's final hidden states [B, T, H]. Blocks below the first adapted one run once for all members.

        They do not run if their output is given as `stored_BTH`.
        """
        blocks, count, from_block = self.prefix.blocks, len(self.members), self.from_block
        self.adapters.expect(range(count) if from_block < blocks else [], {})
        groups = [0] * (count if from_block < blocks else 1)
        hidden_BTH = self.prefix.hidden(
            batch.input_ids_BT, batch.mask_BT, groups, from_block=from_block, stored_UTH=stored_BTH
        )
        return list(torch.split(hidden_BTH, len(batch.mask_BT))) * (1 if from_block < blocks else count)

    def kept_rows(self) -> KeptRows | None:
        """The states that the runs kept, if any of them did."""
        keep = any(one.config.data.cache_prefix for one in self.members)
        return KeptRows(self.members[0].backbone, self.from_block) if keep else None


def load_pack(runs: Sequence[FinishedRun], place: Place) -> Pack:
    """Loads runs that `read_alike`. Raises the errors of `load`."""
    order = sorted(range(len(runs)), key=lambda number: getattr(runs[number].config.lora, "rank", 0))
    config, backbone = load_backbone_of(runs[order[0]], place)
    adapters = PackedAdapters(backbone)
    put = [put_over(runs[number], _there(runs[number], config), backbone, adapters) for number in order]
    adapters.arrange([packed for _, packed in put])
    return Pack([trained for trained, _ in put], order, adapters, SharedPrefix(backbone))


def _there(run: FinishedRun, first: Config) -> Config:
    # Its own adapter, head and data over the backbone that was loaded for the first run.
    return replace(run.config, model=first.model, precision=first.precision)


def read_alike(runs: Sequence[FinishedRun], place: Place) -> list[list[int]]:
    """Which runs can answer in one pass, by their places: over one backbone, with the same tokens of every row.

    Runs with lora=full or with adapters of PEFT's own layers, and those over encoders, are alone.
    """
    groups: dict[object, list[int]] = {}
    for number, run in enumerate(runs):
        key = _key(run, place)
        groups.setdefault(number if key is None else key, []).append(number)
    return list(groups.values())


def _key(run: FinishedRun, place: Place) -> str | None:
    config = moved(run, place.model_path)
    try:
        model_type = architecture(config.model).model_type
        if run.full or not shares_backbone(config.lora, model_type) or not (run.weights / WHOLE).is_file():
            return None
        tokenizer = tokenizer_identity(run.weights)
    except ModelError:  # said where the run is loaded
        return None
    head = config.head
    of_model = [asdict(config.model), asdict(config.precision), run.manifest["backbone"], run.manifest.get("flat")]
    # A pack reads one order or both, and a symmetric head needs one.
    of_head = [
        head.reads_lm_head,
        head.passes,
        head.symmetric,
        head.cued,
        head.target,
        run.manifest.get(ARITHMETIC),
        run.classes,
    ]
    return repr([of_model, of_head, _reading(config.data), tokenizer])


def _reading(data: Data) -> list[Any]:
    names = [one.name for one in fields(data) if one.name in _READING or one.name.endswith("_column")]
    return [type(data), *((name, getattr(data, name)) for name in names)]
