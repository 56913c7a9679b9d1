"""From a config's data to encoded rows: records, tokenizer, tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep.data import Parts, Record, load_parts
from danube_sweep.data.arena import swapped
from danube_sweep.data.encode import Encoded, encode_cached, layout_for
from danube_sweep.errors import DataError
from danube_sweep.metrics import prior_log_loss
from danube_sweep.schema import ArenaData, Config, GeneratedData
from danube_sweep.tokenizer import build_tokenizer


@dataclass(frozen=True)
class Prepared:
    """A trial's rows by part (train, validation and, if there is one, test), ready to batch."""

    parts: dict[str, Encoded]
    classes: list[str]
    tokenizer: PreTrainedTokenizerBase
    references: dict[str, float]
    """Log losses to hold a result against: uniform, the training part's prior and, where known, Bayes-optimal."""

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)


def prepare(config: Config) -> Prepared:
    """Reads, splits and encodes the data of a trial. Raises DataError, ModelError or ConfigError."""
    loaded = load_parts(config.data)
    tokenizer = build_tokenizer(config.model, (text for record in loaded.train for text in record.texts))
    layout = layout_for(config.model, config.data, config.head)
    records = {"train": _augmented(loaded.train, config), "validation": loaded.validation, "test": loaded.test}
    parts = {
        name: encode_cached(rows, tokenizer, config.data, layout, num_classes=len(loaded.classes))
        for name, rows in records.items()
        if rows
    }
    for name, part in parts.items():
        if not part.ids:
            raise DataError(f"data: no row is left in the {name} part after tokenising; give more text")
    return Prepared(parts, loaded.classes, tokenizer, _references(loaded, parts))


def _augmented(records: list[Record], config: Config) -> list[Record]:
    match config.data:
        case ArenaData(swap_augment=True) | GeneratedData(swap_augment=True):
            return [both for record in records for both in (record, swapped(record))]
    return records


def _references(loaded: Parts, parts: dict[str, Encoded]) -> dict[str, float]:
    if not loaded.classes:
        return {}
    train, validation = (parts[name].labels for name in ("train", "validation"))
    assert train is not None and validation is not None
    references = {
        "uniform_log_loss": float(np.log(len(loaded.classes))),
        "prior_log_loss": prior_log_loss(torch.from_numpy(train), torch.from_numpy(validation)),
    }
    if loaded.bayes_log_loss is not None:
        references["bayes_log_loss"] = loaded.bayes_log_loss
    return references
