"""A finished run as a language model: its backbone with the adapter attached or merged. Its head takes no part."""

from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from danube_sweep.config.stored import plain_config
from danube_sweep.errors import ConfigError
from danube_sweep.inference.export.export_weights import dense_weight
from danube_sweep.inference.predict import FinishedRun, Place, Trained, load
from danube_sweep.model.precision import DTYPES
from danube_sweep.training.evaluate import evaluating


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
