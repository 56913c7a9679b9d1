"""The settings to start from for a file: its recognised data, a model, and sizes that fit the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from danube_sweep.composer import Composer, choices
from danube_sweep.config.schema import Config, Device
from danube_sweep.data.kind import DataSize
from danube_sweep.data.recognise.guess import Guess
from danube_sweep.data.recognise.recognise_file import Recognised
from danube_sweep.data.size import data_size
from danube_sweep.errors import MisfitError
from danube_sweep.planner.planned_device import planned_device
from danube_sweep.planner.trial_plan import TrialPlan, plan_of

CPU_MODEL, GPU_MODEL = "smollm2_135m", "danube3_500m"


@final
@dataclass(frozen=True)
class StartingPoint:
    """A trial to start from."""

    guesses: list[Guess]
    """Of the file, then of the model and the device."""
    config: Config
    plan: TrialPlan
    size: DataSize | None

    @property
    def overrides(self) -> list[str]:
        """All of it as overrides, without the quotes of a shell."""
        return [guess.word for guess in self.guesses]


def starting_point(
    recognised: Recognised, given: Sequence[str] = (), composer: Composer | None = None
) -> StartingPoint:
    """The trial to start from; `given` are the overrides that `recognised` was made with.

    Model and precision follow from the device, and micro-batch and savings of memory from the planner. Raises UserError
    for overrides that cannot be composed, and for a trial that fits in no way.
    """
    composer, words = composer or Composer(), choices(given)
    device = device_of(composer, given)
    fields = {one.partition("=")[0] for one in words}
    guesses = [guess for guess in _guesses(device) if guess.field not in fields]
    fixed = [*recognised.guesses, *guesses]
    more = [] if "trainer.micro_batch" in fields else _what_fits(composer, [guess.word for guess in fixed])
    whole = [*fixed, *more]
    config = composer.trial([guess.word for guess in whole])
    size = data_size(config.data)
    rows, tokens = (None, None) if size is None else (size.rows, size.tokens_per_row)
    return StartingPoint(whole, config, plan_of(config, rows=rows, tokens_per_row=tokens), size)


def device_of(composer: Composer, given: Sequence[str]) -> Device:
    """The device that overrides ask for, as it is planned for. Raises UserError for an unknown one."""
    return planned_device(composer.trial([one for one in choices(given) if one.startswith("device")]).device)


def usual_model(device: Device) -> str:
    """The model to start from on a device."""
    return CPU_MODEL if device.accelerator == "cpu" else GPU_MODEL


def _guesses(device: Device) -> list[Guess]:
    memory = "" if device.memory_gib is None else f" with {device.memory_gib:.1f} GiB"
    here = Guess("device", "auto", f"{device.name}{memory}")
    if device.accelerator == "cpu":
        return [Guess("model", usual_model(device), "small enough for a CPU"), here]
    sixteen = "bf16" if "bf16" in device.types else "fp16"
    return [
        Guess("model", usual_model(device), "the smallest Danube; larger ones once this one works"),
        Guess("precision", sixteen, f"{device.name} computes in it"),
        here,
    ]


def _what_fits(composer: Composer, words: list[str]) -> list[Guess]:
    """The micro-batch that fits, and before it the changes without which not even one row does."""
    field = "trainer.micro_batch"
    try:
        rows = composer.trial([*words, f"{field}=auto"]).trainer.micro_batch
        return [Guess(field, rows, "the most rows that fit and divide trainer.effective_batch")]
    except MisfitError as error:
        change = plan_of(composer.trial([*words, f"{field}=1"])).change
        if change is None:
            raise MisfitError(f"{error}; give another model or a device with more memory") from error
    changes = [
        Guess(word.partition("=")[0], word, "without it not even one row fits", given=True) for word in change.split()
    ]
    return [*changes, *_what_fits(composer, [*words, *change.split()])]
