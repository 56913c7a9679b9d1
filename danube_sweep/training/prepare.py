"""From a config's data to encoded rows: records, tokenizer, tokens."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from danube_sweep.config.identity import is_random
from danube_sweep.config.schema import Comparison, Config, Target
from danube_sweep.data.chat_markup import markup_for
from danube_sweep.data.description import DataDescription, describe
from danube_sweep.data.encode import encode_cached
from danube_sweep.data.encoded import Encoded
from danube_sweep.data.layout import layout_for
from danube_sweep.data.parts import load_parts
from danube_sweep.data.records import Parts, Record, swapped
from danube_sweep.data.tokenizer import build_tokenizer
from danube_sweep.data.vocabulary import check_vocabulary
from danube_sweep.errors import DataError
from danube_sweep.model.backbone import architecture
from danube_sweep.training.metrics import answer_without_reading, references


@dataclass(frozen=True)
class Prepared:
    """A trial's rows by part (train and, if there are such rows, validation and test), ready to batch."""

    parts: dict[str, Encoded]
    classes: list[str]
    tokenizer: PreTrainedTokenizerBase
    references: dict[str, float]
    """The scores of answering without reading, from the training part's class shares or mean."""
    prior: list[float]
    """The answer itself: a probability a class in the order of `classes`, or the mean; empty in language modelling."""
    description: DataDescription
    markup_note: str | None = None
    """Which chat markup stands around the texts, in a line to print, where the tokenizer decided."""

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)


def prepare(config: Config) -> Prepared:
    """Reads, splits and encodes the data of a trial. Raises DataError, ModelError or ConfigError."""
    loaded = load_parts(config.data, config.head.target)
    tokenizer = build_tokenizer(config.model, (text for record in loaded.train for text in record.texts))
    markup = markup_for(config.model, tokenizer)
    layout = layout_for(config.model, config.data, config.head, markup)
    if not is_random(config.model):
        check_vocabulary(tokenizer, layout, architecture(config.model).vocab_size, str(config.model.path))
    own = _augmented(loaded.train, config)
    records = {"train": [*own, *_augmented(loaded.extra, config)], "validation": loaded.validation, "test": loaded.test}
    parts = {
        name: encode_cached(rows, tokenizer, config.data, layout, num_classes=len(loaded.classes))
        for name, rows in records.items()
        if rows
    }
    for name, part in parts.items():
        if not part.ids:
            raise DataError(f"data: no row is left in the {name} part after tokenising; give more text")
    references, prior = _without_reading(config, loaded, parts, len(own))
    description = describe(
        replace(loaded, train=[*loaded.train, *loaded.extra]), parts, config.data, config.head.target
    )
    return Prepared(parts, loaded.classes, tokenizer, references, prior, description, markup.note)


def _augmented(records: list[Record], config: Config) -> list[Record]:
    if isinstance(config.data, Comparison) and config.data.swap_augment:
        return [both for record in records for both in (record, swapped(record))]
    return records


def _without_reading(
    config: Config, loaded: Parts, parts: dict[str, Encoded], own: int
) -> tuple[dict[str, float], list[float]]:
    # Of the training file's own rows, so that trials with and without extra rows have the same references.
    if config.head.target is Target.nothing:
        return {}, []
    train = _targets(parts["train"], len(loaded.classes))
    train = train[:own] if loaded.extra else train
    found: dict[str, float] = {}
    if "validation" in parts:
        found = references(config.head.target, train, _targets(parts["validation"], len(loaded.classes)))
    if loaded.bayes_log_loss is not None:
        found["bayes_log_loss"] = loaded.bayes_log_loss
    return found, answer_without_reading(config.head.target, train).tolist()


def _targets(part: Encoded, classes: int) -> torch.Tensor:
    if part.words is None:
        assert part.labels is not None
        return torch.from_numpy(part.labels)
    places_N = torch.from_numpy(np.concatenate(part.words)[:, 2]).long()
    return torch.nn.functional.one_hot(places_N, classes).float()
