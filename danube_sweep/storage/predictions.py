"""Labels and answers as the columns of a table: what predictions.parquet holds of them."""

from typing import Any

import numpy as np
import torch

from danube_sweep.config.schema import Target
from danube_sweep.data.encoded import Encoded

PROBABILITY, LABEL, PREDICTION = "probability_", "label_", "prediction"


def columns(target: Target, classes: list[str], part: Encoded, answers_NA: torch.Tensor | None) -> dict[str, Any]:
    """By name, a value per example of `part`.

    A class: `label` and a `probability_` each; several: a `label_` and a `probability_` each; a number: `label` and
    `prediction`; in language modelling the `weight` of a row, its predicted tokens.
    """
    if answers_NA is None:
        return {"weight": part.weights}
    if target is Target.number:
        assert part.labels is not None
        return {"label": part.labels[:, 0], PREDICTION: answers_NA[:, 0].numpy()}
    probabilities = {f"{PROBABILITY}{name}": answers_NA[:, place].numpy() for place, name in enumerate(classes)}
    if target is Target.many:
        assert part.labels is not None
        return {f"{LABEL}{name}": part.labels[:, place] for place, name in enumerate(classes)} | probabilities
    return {"label": [classes[place] for place in _places(part)], **probabilities}


def is_answer(column: str) -> bool:
    """Whether a column of predictions.parquet holds answers."""
    return column == PREDICTION or column.startswith(PROBABILITY)


def _places(part: Encoded) -> list[int]:
    if part.words is not None:
        return [int(place) for words in part.words for place in words[:, 2]]
    assert part.labels is not None
    return [int(place) for place in np.argmax(part.labels, axis=1)]
