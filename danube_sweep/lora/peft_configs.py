"""PEFT's description of an adapter, made from its config."""

import copy
import warnings
from typing import Any

from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, TaskType, VeraConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from danube_sweep.config.schema import Adalora, Dora, Ia3, LinearAdapter, Lora, Olora, Peft, Vera
from danube_sweep.errors import ConfigError
from danube_sweep.lora.target_modules import adapted_modules, feedforward_modules
from danube_sweep.model.backbone import Backbone

ADAPTER = "default"
"""PEFT's name for an adapter that was given none."""

SEEDED = {"randlora": "projection_prng_key"}
"""PEFT's name -> the field that takes the seed of random projections, which are drawn again and not saved."""


def peft_config(config: LinearAdapter, backbone: Backbone) -> PeftConfig:
    """PEFT's description of the adapter that is attached to the backbone, as it is also saved."""
    return copy.deepcopy(backbone.body.peft_config[ADAPTER])


def describe_adapter(config: LinearAdapter, backbone: Backbone, *, seed: int) -> PeftConfig:
    """PEFT's config of an adapter for a backbone; `seed` draws shared tensors that are not saved.

    Raises ConfigError for modules, layers or fields that do not fit the model.
    """
    where = adapted_modules(config, backbone)
    task = TaskType.CAUSAL_LM if backbone.lm_head is not None else TaskType.FEATURE_EXTRACTION
    match config:
        case Lora():
            return _lora(config, where, task)
        case Adalora():
            return _adalora(config, where, task)
        case Ia3():
            return IA3Config(task_type=task, feedforward_modules=feedforward_modules(config, backbone), **where)
        case Vera():
            return _vera(config, where, task, seed)
        case Peft():
            return _other(config, where, task, seed)
    raise TypeError(f"no description for {config}")


def _lora(config: Lora, where: dict[str, Any], task: TaskType) -> LoraConfig:
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.used_alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        use_dora=isinstance(config, Dora),
        init_lora_weights="olora" if isinstance(config, Olora) else True,
        bias=config.bias.value,
        task_type=task,
        **where,
    )


def _adalora(config: Adalora, where: dict[str, Any], task: TaskType) -> AdaLoraConfig:
    # PEFT wants a number of steps even where nothing is trained; RankAllocation has the true ones.
    return AdaLoraConfig(
        init_r=config.rank,
        target_r=config.target_rank,
        lora_alpha=config.used_alpha,
        lora_dropout=config.dropout,
        deltaT=config.delta_t,
        beta1=config.beta1,
        beta2=config.beta2,
        orth_reg_weight=config.orthogonality,
        total_step=1,
        task_type=task,
        **where,
    )


def _vera(config: Vera, where: dict[str, Any], task: TaskType, seed: int) -> VeraConfig:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the projections are drawn again and not saved, as intended
        return VeraConfig(
            r=config.rank,
            vera_dropout=config.dropout,
            d_initial=config.d_initial,
            projection_prng_key=seed,
            save_projection=False,
            task_type=task,
            **where,
        )


def _other(config: Peft, where: dict[str, Any], task: TaskType, seed: int) -> PeftConfig:
    fields = dict(config.fields or {})
    if config.type in SEEDED:
        fields |= {SEEDED[config.type]: seed, "save_projection": False}
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[config.type.upper()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        try:
            return kind(task_type=task, **fields, **where)
        except (TypeError, ValueError) as error:
            raise refused(config, error) from error


def refused(config: LinearAdapter, error: Exception) -> ConfigError:
    """The one line for a mistake in values or sizes that PEFT itself finds."""
    said = " ".join(str(error).split())
    given = f"lora.type={config.type} lora.fields={config.fields or {}}" if isinstance(config, Peft) else "lora"
    return ConfigError(f"{given}: PEFT refuses it: {said}")
