"""Which architecture a config means: its shape's, or that of a local folder's config.json. No weights are read."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from danube_sweep.architecture import FAMILIES, Architecture, architecture_of
from danube_sweep.errors import ModelError
from danube_sweep.schema import Model, Shape
from danube_sweep.trial import is_random


def planned_architecture(model: Model) -> Architecture:
    """The architecture that would be trained; of a hub name, what conf/model says of it.

    Raises ModelError for a local folder without a config.json that this planner can read.
    """
    folder = None if model.path is None or is_random(model) else Path(model.path).expanduser()
    if folder is None or not folder.is_dir():
        return architecture_of(model.shape)
    try:
        return described_architecture(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, OSError) else "there is none"
        raise ModelError(
            f"model.path={model.path}: the folder has no usable config.json ({reason}); give a complete copy"
        ) from error


def described_architecture(described: Mapping[str, Any]) -> Architecture:
    """The architecture of a transformers config. Raises KeyError or ValueError for what is unknown or missing."""
    kind = str(described["model_type"])
    if kind not in FAMILIES:
        raise ValueError(f"model_type {kind} is none of {', '.join(FAMILIES)}")
    heads = int(described["num_attention_heads"])
    derived = {"num_key_value_heads": heads, "head_dim": int(described["hidden_size"]) // heads}
    known = {key: value for key, value in described.items() if value is not None}
    values = {field.name: {**derived, **known}.get(field.name) for field in fields(Shape)}
    given = {name: value for name, value in values.items() if value is not None}
    return architecture_of(Shape(**given), tied=bool(described.get("tie_word_embeddings", FAMILIES[kind].tied)))
