"""Seconds of what is still to come: the planner's, corrected by what the night has measured."""

from pathlib import Path
from typing import Final

from danube_sweep.tonight.backbones import Backbone
from danube_sweep.tonight.night_folder import NightFolder, Ran
from danube_sweep.tonight.searched_keys import Settings

VALIDATIONS: Final = 1.25
"""Of a trial over its training alone, until something was measured."""
STARTING_S: Final = 15.0
"""Of a command: imports, the backbone, the rows."""
FORWARD_SHARE: Final = 1 / 3
"""Of a training step, without its backward pass."""
REFIT: Final = 1.3
"""Of a trial: it also trains the fifth of the rows that validated."""

ALONE: Final = 1.6
"""Seconds of a trial by itself over its share of a pack's, which gains so much and more."""
LEAST_AT_THE_END: Final = 0.1
"""Of the hours: what was predicted may take longer on a machine that others share."""


def correction(night: NightFolder, backbone: Backbone) -> float:
    """Measured over predicted seconds of the rounds that have ended: those of the backbone, else of all."""
    rounds = [one for one in night.ran if one.predicted_s and one.seconds and one.outcome == "whole"]
    own = [one for one in rounds if one.backbone == backbone.name] or rounds
    if not own:
        return VALIDATIONS
    return sum(max(one.seconds or 0.0, 1.0) for one in own) / sum(map(_predicted, own))


def trial_s(night: NightFolder, backbone: Backbone, settings: Settings) -> float:
    """Seconds of a trial with its validations."""
    return backbone.predicted_s(settings) * correction(night, backbone)


def predict_s(night: NightFolder, backbone: Backbone) -> float:
    """Seconds of the predictions: the test file is as long as its bytes say, and both orders count."""
    assert night.asked is not None
    whole = Path(night.asked.train).expanduser().stat().st_size
    share = Path(night.asked.test).expanduser().stat().st_size / max(whole, 1)
    size, trainer = backbone.start.size, backbone.trial(backbone.first).trainer
    steps = trainer.max_steps * trainer.effective_batch if trainer.max_steps else None
    epochs = trainer.epochs if steps is None or size is None else steps / max(size.rows, 1)
    epoch_s = trial_s(night, backbone, backbone.first) / max(epochs, 1e-9)
    orders = 2 if backbone.start.config.head.compares else 1
    return STARTING_S + epoch_s * share * FORWARD_SHARE * orders


def reserve_s(night: NightFolder, backbone: Backbone, settings: Settings) -> float:
    """Seconds to keep for the refit and the predictions of some settings."""
    assert night.asked is not None
    end_s = STARTING_S + REFIT * trial_s(night, backbone, settings) + predict_s(night, backbone)
    return max(end_s, LEAST_AT_THE_END * night.asked.hours * 3600)


def _predicted(one: Ran) -> float:
    return max(one.predicted_s or 0.0, 1e-9)
