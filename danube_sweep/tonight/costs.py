"""Seconds of what is still to come: the planner's, corrected by what the night has measured."""

from pathlib import Path
from typing import Final

from danube_sweep.tonight.backbones import FORWARD_SHARE, Backbone
from danube_sweep.tonight.night_folder import NightFolder, Ran
from danube_sweep.tonight.searched_keys import Settings

UNMEASURED: Final = 1.1
"""Of a trial over its prediction, until something was measured."""
STARTING_S: Final = 15.0
"""Of a command: imports, the backbone, the rows."""
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
        return UNMEASURED
    return sum(max(one.seconds or 0.0, 1.0) for one in own) / sum(map(_predicted, own))


def trial_s(night: NightFolder, backbone: Backbone, settings: Settings) -> float:
    """Seconds of a trial with its validations."""
    return backbone.predicted_s(settings) * correction(night, backbone)


def predict_s(night: NightFolder, backbone: Backbone) -> float:
    """Seconds of the predictions: the test file is as long as its bytes say, and both orders count."""
    assert night.asked is not None
    whole = Path(night.asked.train).expanduser().stat().st_size
    share = Path(night.asked.test).expanduser().stat().st_size / max(whole, 1)
    epoch_s = (backbone.plan(backbone.first).epoch_s or 0.0) * correction(night, backbone)
    orders = 2 if backbone.start.config.head.compares else 1
    return STARTING_S + epoch_s * share * FORWARD_SHARE * orders


def reserve_s(night: NightFolder, backbone: Backbone, settings: Settings) -> float:
    """Seconds to keep for the refit and the predictions of some settings."""
    assert night.asked is not None
    end_s = STARTING_S + REFIT * trial_s(night, backbone, settings) + predict_s(night, backbone)
    return max(end_s, LEAST_AT_THE_END * night.asked.hours * 3600)


def _predicted(one: Ran) -> float:
    return max(one.predicted_s or 0.0, 1e-9)
