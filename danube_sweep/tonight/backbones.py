"""The backbones of a night: of each the trial that it starts from, and the search around it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from danube_sweep import paths
from danube_sweep.composer import Composer
from danube_sweep.config.identity import trial_hash
from danube_sweep.config.override_words import override_word
from danube_sweep.config.schema import Config, Target
from danube_sweep.data.kind import DataSize
from danube_sweep.data.recognise.recognise_file import recognise
from danube_sweep.data.size import data_size
from danube_sweep.errors import ConfigError, MisfitError
from danube_sweep.planner.trial_plan import plan_of
from danube_sweep.sweeping.starting_point import GPU_MODEL, StartingPoint, device_of, starting_point, usual_model
from danube_sweep.tonight.asked import Asked
from danube_sweep.tonight.searched_keys import EPOCHS_KEY, Key, Settings, keys_of, settings_at_start

LARGER: Final = "danube3_4b"
"""On a GPU, beside the model that every start is made from."""
TEST_PART: Final = ("data.test_path", "trainer.score_test")
"""Of a test file with labels, which a night only predicts."""


@final
@dataclass
class Backbone:
    """A model of the night with its fixed overrides, and what its trials cost by prediction."""

    name: str
    start: StartingPoint
    words: list[str]
    """Of every trial; those of `keys` come on top."""
    keys: list[Key]
    composer: Composer
    _sizes: dict[str, DataSize | None] = field(default_factory=dict)

    def trial_words(self, settings: Settings) -> list[str]:
        """The overrides of a trial."""
        return [*self.words, *(f"{name}={value}" for name, value in settings.items())]

    def trial(self, settings: Settings) -> Config:
        """The trial. Raises UserError for settings that do not go together."""
        return self.composer.trial(self.trial_words(settings))

    def hash(self, settings: Settings) -> str:
        """Of the trial. Raises UserError, also for a model that is not here."""
        return trial_hash(self.trial(settings))

    def predicted_s(self, settings: Settings) -> float:
        """Seconds of training alone, by the planner."""
        config = self.trial(settings)
        key = repr(config.data)
        if key not in self._sizes:
            self._sizes[key] = data_size(config.data)
        size = self._sizes[key]
        rows, tokens = (None, None) if size is None else (size.rows, size.tokens_per_row)
        return plan_of(config, rows=rows, tokens_per_row=tokens).training_s or 0.0

    @property
    def first(self) -> Settings:
        """The settings of the first trial."""
        return settings_at_start(self.keys)


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
            start = starting_point(recognise(asked.train, given, asked.test), given, composer)
        except MisfitError as error:
            say(f"{name} is left out: {error}")
            continue
        if start.config.head.target is Target.nothing:
            raise ConfigError("head=lm has no answers to predict; leave it out, or give another head")
        found.append(_backbone(name, start, asked, composer))
    if not found:
        raise MisfitError("no model fits; give another by --models, or a device with more memory")
    if any(guess.field in TEST_PART and not guess.given for guess in found[0].start.guesses):
        say(f"{asked.test} has labels, which choose nothing: its rows are predicted, and not scored")
    return found


def with_epochs(backbone: Backbone, epochs: str) -> None:
    """Starts its trials with other epochs, where nobody has given them."""
    backbone.keys = [
        Key(key.name, key.values, epochs, key.ordered, key.only_up) if key.name == EPOCHS_KEY else key
        for key in backbone.keys
    ]


def _backbone(name: str, start: StartingPoint, asked: Asked, composer: Composer) -> Backbone:
    fixed = {word.partition("=")[0] for word in asked.of_trials}
    keys = keys_of(start.config, fixed, "1")
    own = {key.name for key in keys}
    left_out = own | (set(TEST_PART) - fixed)
    words = [word for word in start.overrides if word.partition("=")[0] not in left_out]
    return Backbone(name, start, words, keys, composer)


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
