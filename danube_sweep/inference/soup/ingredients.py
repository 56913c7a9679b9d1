"""The trials of a sweep that can be averaged exactly: plain LoRA on the same linears of one backbone, with one head."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from danube_sweep.config.facts.adapters import is_packed
from danube_sweep.config.schema import Bias, Config, FullFinetune, Head, Lora, NoAdapter
from danube_sweep.config.stored import plain_config
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.inference.predict import FinishedRun, Place, open_run
from danube_sweep.inference.runs_in_packs import read_alike
from danube_sweep.results.ensemble.members import Member
from danube_sweep.storage import checkpoint
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.training import trained_weights

_ONLY_TRAINING = ("lr", "dropout", "label_smoothing", "loss", "chunk")
"""Fields of a head that change how it learns, and not how it answers."""


@dataclass(frozen=True)
class Ingredient:
    """A finished trial and its trained tensors, on the CPU."""

    name: str
    run: FinishedRun
    adapter: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """A [rank, I] and B [O, rank] of each linear, in fp32."""
    scale: float
    """The factor of the product B A."""
    head: dict[str, torch.Tensor]

    @property
    def rank(self) -> int:
        return len(next(iter(self.adapter.values()))[0])


def find_ingredients(members: Sequence[Member], place: Place, most: int) -> tuple[list[Ingredient], list[str]]:
    """The models that can be averaged with the best one that can be averaged at all; and notes on the others.

    The given models were validated on the same rows and come best first. Raises CheckpointError for a run that is
    damaged or whose data were changed. Raises ConfigError, naming each trial, if fewer than two are left.
    """
    found: list[Ingredient] = []
    refused: list[str] = []
    passed = 0
    for member in members:
        why = _why_not_alone(member)
        if why is None:
            run = _opened(member)
            why = _why_not_together(run, found[0].run, place) if found else None
        if why is None and len(found) == most:
            passed += 1
        elif why is None:
            one = _ingredient(member.name, run)
            why = _other_weights(one, found[0]) if found else None
            found += [one] if why is None else []
        if why is not None:
            refused.append(f"{member.name} is left out: {why}")
    if len(found) < 2:
        said = "; ".join(refused) or "there is one"
        raise ConfigError(f"a soup needs two trials that can be averaged: {said}")
    return found, [*refused, *([f"{passed} more are not tried (--candidates {most})"] if passed else [])]


def _why_not_alone(member: Member) -> str | None:
    if len(member.runs) > 1:
        return "each of its folds was trained on rows that validate the others; give trials without data.folds"
    trial = member.trials[0]
    config = open_run(trial.folder.path).config
    kind = plain_config(config)["lora"]["kind"]
    match config.lora:
        case NoAdapter():
            return "lora=none has no adapter to average"
        case FullFinetune():
            return "lora=full has no adapter, and a whole model is not averaged here"
        case Lora(bias=bias) if bias is not Bias.none:
            return f"lora.bias={bias.value} trains biases of the model too"
        case adapter if not is_packed(adapter):
            return f"lora={kind}: its update is more than a product of two matrices"
    return None


def _opened(member: Member) -> FinishedRun:
    folder = RunFolder(member.runs[0])
    run = open_run(folder.path)
    if member.trials[0].hash != folder.hash_of(run.config):
        raise CheckpointError(
            f"{folder.path}: its data or model files were changed since the run; put back what they were"
        )
    return run


def _why_not_together(run: FinishedRun, first: FinishedRun, place: Place) -> str | None:
    mine, theirs = run.config, first.config
    for said, same in (
        (f"another backbone (model.path={mine.model.path})", run.manifest["backbone"] == first.manifest["backbone"]),
        (f"another precision ({mine.precision.storage.value})", mine.precision == theirs.precision),
        (f"another head (head={_head_name(mine)})", type(mine.head) is type(theirs.head)),
        ("another form of the head (head.*)", _form(mine.head) == _form(theirs.head)),
        (f"other targets (lora.targets={_targets(mine)})", _targets(mine) == _targets(theirs)),
    ):
        if not same:
            return f"{said} than {first.path.name}"
    if len(read_alike([run, first], place)) > 1:
        return f"it reads rows in another way than {first.path.name} (data.max_length, data.truncation, the tokenizer)"
    return None


def _head_name(config: Config) -> str:
    return str(plain_config(config)["head"]["kind"])


def _form(head: Head) -> Mapping[str, object]:
    return {name: value for name, value in vars(head).items() if name not in _ONLY_TRAINING}


def _targets(config: Config) -> str:
    adapter = config.lora
    assert isinstance(adapter, Lora)
    chosen = {"last_k": adapter.last_k, "layers": adapter.layers}
    more = "".join(f" lora.{name}={value}" for name, value in chosen.items() if value is not None)
    return f"{adapter.targets}{more}"


def _ingredient(name: str, run: FinishedRun) -> Ingredient:
    adapter = run.config.lora
    assert isinstance(adapter, Lora)
    state = checkpoint.load_tensors(run.weights / trained_weights.ADAPTER)
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for key, value in state.items():
        if key.endswith(".lora_A.weight"):
            linear = key.removesuffix(".lora_A.weight")
            pairs[linear] = value.float(), state[f"{linear}.lora_B.weight"].float()
    head = run.weights / trained_weights.HEAD
    weights = checkpoint.load_tensors(head) if head.is_file() else {}
    scale = adapter.used_alpha / (math.sqrt(adapter.rank) if adapter.rslora else adapter.rank)
    return Ingredient(name, run, pairs, scale, weights)


def _other_weights(one: Ingredient, first: Ingredient) -> str | None:
    if one.adapter.keys() != first.adapter.keys():
        return f"adapters on other linears than {first.run.path.name}"
    if {name: value.shape for name, value in one.head.items()} != {
        name: value.shape for name, value in first.head.items()
    }:
        return f"another shape of the head than {first.run.path.name}"
    return None
