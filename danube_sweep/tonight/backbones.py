"""The backbones of a night: of each the trial that it starts from, and the search around it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, final

from danube_sweep import paths
from danube_sweep.composer import Composer
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.override_words import override_word
from danube_sweep.config.schema import Config, Target
from danube_sweep.data.kind import DataSize
from danube_sweep.data.recognise.recognise_file import Recognised, recognise
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, MisfitError
from danube_sweep.planner.sweep_seconds import steps_of
from danube_sweep.planner.trial_plan import TrialPlan, plan_of
from danube_sweep.sweeping.starting_point import GPU_MODEL, StartingPoint, device_of, starting_point, usual_model
from danube_sweep.tonight.asked import Asked
from danube_sweep.tonight.searched_keys import Settings, Space, with_start
from danube_sweep.tonight.space_of_trial import Known, space_of

LARGER: Final = "danube3_4b"
"""On a GPU, beside the model that every start is made from."""
FORWARD_SHARE: Final = 1 / 3
"""Of a training step, without its backward pass."""
VALIDATIONS: Final = 5
"""Of a trial with trainer.validate_every=null, however short it is."""
TEST_PART: Final = ("data.test_path", "trainer.score_test")
"""Of a test file with labels, which a night only predicts."""


@final
@dataclass
class Backbone:
    """A model of the night with its fixed overrides, and what its trials cost by prediction."""

    name: str
    start: StartingPoint
    words: list[str]
    """Of every trial; those of `space` come on top."""
    space: Space
    composer: Composer
    _sizes: dict[str, DataSize | None] = field(default_factory=dict)
    _trials: dict[str, Config] = field(default_factory=dict)
    _hashes: dict[str, str] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)

    def trial_words(self, settings: Settings) -> list[str]:
        """The overrides of a trial."""
        return [*self.words, *(f"{name}={value}" for name, value in settings.items())]

    def trial(self, settings: Settings) -> Config:
        """The trial. Raises UserError for settings that do not go together."""
        key = _key(settings)
        if key not in self._trials:
            self._trials[key] = self.composer.trial(self.trial_words(settings))
        return self._trials[key]

    def plan(self, settings: Settings) -> TrialPlan:
        """The plan of the trial on the rows of the file. Raises UserError."""
        return _planned(self.trial(settings), self._sizes)

    def hash(self, settings: Settings) -> str:
        """Of the trial; a model that is not here counts by its name. Raises UserError."""
        key = _key(settings)
        if key not in self._hashes:
            self._hashes[key] = trial_hash(self.trial(settings), planning=True)
        return self._hashes[key]

    def check_here(self) -> None:
        """Raises UserError for a model that is not here; a plan needs none."""
        trial_hash(self.trial(self.first))
        self._hashes.clear()

    def predicted_s(self, settings: Settings) -> float:
        """Seconds of training by the planner, and of its validations, which are forward passes."""
        key = _key(settings)
        if key not in self._seconds:
            config, plan = self.trial(settings), self.plan(settings)
            size = self._sizes[repr(config.data)]
            passes = FORWARD_SHARE * _validations(config, None if size is None else size.rows)
            self._seconds[key] = (plan.training_s or 0.0) + passes * (plan.epoch_s or 0.0)
        return self._seconds[key]

    @property
    def first(self) -> Settings:
        """The settings of the first trial."""
        return self.space.first


def backbones_of(asked: Asked, say: Callable[[str], object]) -> list[Backbone]:
    """The backbones that were asked for, or follow from the device; those that fit in no way are left out with a line.

    Raises DataError for a file that is not recognised, ConfigError for a model that is unknown, for a head without
    answers and if no backbone fits.
    """
    composer = Composer()
    if "data=text" in recognise(asked.train, asked.of_trials).overrides:
        raise ConfigError(f"{asked.train}: data=text has no answers to predict; give a file with labels")
    names = asked.models or _usual(asked, composer)
    found: list[Backbone] = []
    for name in dict.fromkeys(names):
        chosen = _model_words(name)
        given = [*chosen, *asked.of_trials]
        try:
            seen = recognise(asked.train, given, asked.test)
            start = starting_point(seen, given, composer)
        except MisfitError as error:
            say(f"{name} is left out: {error}")
            continue
        if start.config.head.target is Target.nothing:
            raise ConfigError("head=lm has no answers to predict; leave it out, or give another head")
        found.append(_backbone(name, start, seen, asked, composer))
    if not found:
        raise MisfitError("no model fits; give another by --models, or a device with more memory")
    if any(guess.field in TEST_PART and not guess.given for guess in found[0].start.guesses):
        say(f"{asked.test} has labels, which choose nothing: its rows are predicted, and not scored")
    return found


def begin_with(backbone: Backbone, key: str, value: str) -> None:
    """Starts its trials with another value of a key, where nobody has given one."""
    backbone.space = with_start(backbone.space, key, value)


def _backbone(name: str, start: StartingPoint, seen: Recognised, asked: Asked, composer: Composer) -> Backbone:
    fixed = {word.partition("=")[0] for word in asked.of_trials}
    sizes: dict[str, DataSize | None] = {}

    @cache
    def planned(*more: str) -> tuple[Config, TrialPlan]:
        groups = {word.partition("=")[0] for word in more}
        kept = [word for word in start.overrides if word.partition("=")[0] not in groups]
        config = composer.trial([*kept, *more])
        return config, _planned(config, sizes)

    column = getattr(start.config.data, "label_column", None)
    classes = sorted(set(seen.seen.labels(column))) if column in seen.seen.names else []
    rows = None if start.size is None else start.size.rows
    space = space_of(Known(start.config, start.overrides, fixed, classes, rows), planned)
    left_out = {key.name for key in space.keys} | (set(TEST_PART) - fixed)
    words = [word for word in start.overrides if word.partition("=")[0] not in left_out]
    return Backbone(name, start, words, space, composer, sizes)


def _planned(config: Config, sizes: dict[str, DataSize | None]) -> TrialPlan:
    key = repr(config.data)
    if key not in sizes:
        sizes[key] = data_size(config.data)
    size = sizes[key]
    rows, tokens = (None, None) if size is None else (size.rows, size.tokens_per_row)
    return plan_of(config, rows=rows, tokens_per_row=tokens)


def _validations(config: Config, rows: int | None) -> float:
    """All validations of a trial, in passes over its training rows."""
    data, trainer = config.data, config.trainer
    steps = steps_of(config, rows)
    times = math.ceil(steps / trainer.validate_every) if trainer.validate_every and steps else VALIDATIONS
    share = 1 / data.folds if data.folds else data.validation_fraction
    return times * share / max(1 - share, share)


def _key(settings: Settings) -> str:
    return repr(sorted(settings.items()))


def _usual(asked: Asked, composer: Composer) -> list[str]:
    """The models for the device: on a CPU the one that `init` takes, on a GPU a larger one beside it."""
    name = usual_model(device_of(composer, asked.of_trials))
    return [name, LARGER] if name == GPU_MODEL else [name]


def _model_words(name: str) -> list[str]:
    """`danube3_500m` is an option, and a folder or OWNER/NAME is a model by itself."""
    options = {file.stem for file in (paths.conf_dir() / "model").glob("*.yaml")}
    if name in options:
        return [f"model={name}"]
    if Path(name).expanduser().is_dir() or name.count("/") == 1:
        return ["model=auto", override_word("model.path", name)]
    raise ConfigError(
        f"--models {name}: no such option and no such folder; a hub model is OWNER/NAME, and options are "
        f"{', '.join(sorted(options))}"
    )
