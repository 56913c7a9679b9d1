"""A finished run as a language model: its backbone with the adapter attached or merged. Its head takes no part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from danube_sweep.config.schema import Config, Init
from danube_sweep.config.stored import plain_config
from danube_sweep.data.tokenizer import load_tokenizer
from danube_sweep.errors import ConfigError
from danube_sweep.inference.export.export_weights import dense_weight
from danube_sweep.inference.predict import FinishedRun, Place, Trained, load, open_run
from danube_sweep.model.precision import DTYPES
from danube_sweep.training.assemble import load_base
from danube_sweep.training.device import pick_device
from danube_sweep.training.evaluate import evaluating
from danube_sweep.training.general_ability import compared, score, score_before


def check_benchmarked(run: FinishedRun) -> str | None:
    """A note if the run's head takes no part. Raises ConfigError for a run that lacks an output layer of words."""
    head = run.config.head
    if head.reads_lm_head:
        return None
    kind = plain_config(run.config)["head"]["kind"]
    if run.full:
        raise ConfigError(
            f"{run.path} trained the whole model under a {kind} head, without an output layer for words; "
            "a benchmark needs a run with an adapter, or with head=causal or head=lm"
        )
    return f"the {kind} head takes no part: the backbone with its adapter is scored"


def load_benchmarked(run: FinishedRun, place: Place, *, merge: bool) -> Trained:
    """The run in PEFT's own layers, with a language-model output layer. `merge` adds the adapter to the weights.

    Quantised weights are dequantised before an adapter is merged, so nothing is rounded again. Raises the errors of
    `load`, and ConfigError for an adapter that cannot be merged.
    """
    trained = load(run, place, by_peft=True, spare=True)
    if merge:
        with evaluating(trained.backbone, trained.head):  # without the adapter's dropout
            _merge(trained)
    return trained


def score_benchmark(path: Path, config: Config) -> dict[str, Any]:
    """What a finished run scores on the tasks of `config.trainer.benchmark`, as a trial's result has it.

    `config` is the run's, with these tasks. Raises the errors of `open_run`, `check_benchmarked` and `load`, and
    DataError for a task without data.
    """
    run = open_run(path)
    check_benchmarked(run)
    backbone = load_base(config, pick_device(config.device), spare=True)
    tokenizer = load_tokenizer(replace(config.model, path=str(run.weights), init=Init.pretrained))
    before = score_before(config, backbone, tokenizer)
    del backbone  # before the second one is loaded
    trained = load_benchmarked(run, Place(config.device), merge=False)
    return compared(before, score(config, trained.backbone, trained.tokenizer))


def _merge(trained: Trained) -> None:
    body, dtype = trained.backbone.body, DTYPES[trained.config.precision.compute]
    for name, layer in [*body.named_modules()]:
        if not isinstance(layer, BaseTunerLayer):
            continue
        base: Any = layer.get_base_layer()
        weight_OI = dense_weight(layer, name).to(dtype)
        dense = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        dense.weight = nn.Parameter(weight_OI, requires_grad=False)
        if base.bias is not None:
            dense.bias = nn.Parameter(base.bias.detach().to(dtype), requires_grad=False)
        holder, _, last = name.rpartition(".")
        setattr(body.get_submodule(holder), last, dense)
