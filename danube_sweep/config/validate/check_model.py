"""The checks of model, precision and the part of the backbone that trains."""

from danube_sweep.config.facts.adapters import FOUR_BIT, QUANTISED, cannot
from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.facts.hub_commits import is_commit
from danube_sweep.config.require import check_seed, require
from danube_sweep.config.schema import (
    Compute,
    Config,
    FullFinetune,
    Init,
    LinearAdapter,
    Model,
    NoAdapter,
    Precision,
    Shape,
    Storage,
)
from danube_sweep.config.validate.check_lora import validate_adapter
from danube_sweep.config.validate.common_checks import own_config
from danube_sweep.errors import ConfigError

BYTES_AND_MARKS = 259
"""The smallest vocabulary of a tokenizer that is trained on the run's own text."""


def validate_model(model: Model) -> None:
    """Raises ConfigError for a variant, weights or a shape that cannot be."""
    check_seed("model.init_seed", model.init_seed)
    require(
        model.variant in model.variants,
        f"model.variant={model.variant}: there is {' and '.join(model.variants)}",
    )
    require(
        model.init is not Init.pretrained or model.path is not None,
        "model.init=pretrained needs weights: give model.path, a hub name or a local folder",
    )
    require(
        model.commit is None or is_commit(model.commit),
        f"model.commit={model.commit}: a commit has 40 hex digits; leave it null and give model.revision",
    )
    _shape(model.shape)
    require(
        (model.path is not None and model.init is not Init.random) or model.shape.vocab_size >= BYTES_AND_MARKS,
        f"model.shape.vocab_size must be at least {BYTES_AND_MARKS} (every byte and three special tokens) "
        f"with random weights, got {model.shape.vocab_size}",
    )


def _shape(shape: Shape) -> None:
    require(
        shape.model_type in FAMILIES,
        f"model.shape.model_type must be one of {', '.join(FAMILIES)}, got {shape.model_type}",
    )
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    for name in (*sizes, "sliding_window"):
        value = getattr(shape, name)
        require(value is None or value >= 1, f"model.shape.{name} must be at least 1, got {value}")
    require(
        shape.head_dim >= 2 and shape.head_dim % 2 == 0,
        f"model.shape.head_dim must be even and at least 2, got {shape.head_dim}",
    )
    require(
        not FAMILIES[shape.model_type].encoder or shape.num_key_value_heads == shape.num_attention_heads,
        f"model.shape.num_key_value_heads of an encoder must equal num_attention_heads={shape.num_attention_heads}, "
        f"got {shape.num_key_value_heads}",
    )
    require(shape.rope_theta > 0, f"model.shape.rope_theta must be above 0, got {shape.rope_theta}")
    require(
        shape.num_attention_heads % max(shape.num_key_value_heads, 1) == 0 and shape.num_key_value_heads >= 1,
        f"model.shape.num_key_value_heads must divide num_attention_heads={shape.num_attention_heads}, "
        f"got {shape.num_key_value_heads}",
    )


def validate_precision(precision: Precision) -> None:
    """Raises ConfigError for types that do not go together."""
    require(
        not precision.double_quant or precision.storage in FOUR_BIT,
        f"precision.double_quant needs 4-bit storage, got precision.storage={precision.storage.value}; "
        "use precision=nf4_dq",
    )
    storage, compute = precision.storage, precision.compute
    mixed = storage in (Storage.bf16, Storage.fp16) and compute.value not in (storage.value, Compute.auto.value)
    require(
        not mixed,
        f"precision.storage={storage.value} computes in {storage.value}, got precision.compute={compute.value}; "
        f"use precision={storage.value} or precision.storage=fp32",
    )


def validate_lora(config: Config) -> None:
    """Raises ConfigError for an adapter that cannot train."""
    storage = config.precision.storage
    match config.lora:
        case LinearAdapter() as adapter:
            validate_adapter(adapter, None if own_config(config.model) else config.model.shape)
        case FullFinetune():
            require(
                storage not in QUANTISED,
                f"lora=full cannot train weights stored in {storage.value}; use precision=bf16 or lora=lora",
            )
            require(
                storage is not Storage.fp16,
                "lora=full cannot train weights stored in fp16 (their gradients cannot be unscaled); "
                "use precision.storage=fp32 precision.compute=fp16",
            )
        case NoAdapter():
            require(
                not config.head.reads_lm_head,
                "lora=none leaves nothing to train: this head has no weights of its own; use lora=lora",
            )
        case _:
            raise TypeError(f"no check for {type(config.lora).__name__}")
    check_adapter(config, config.device.accelerator)


def check_adapter(config: Config, accelerator: str) -> None:
    """Raises ConfigError for an adapter that does not work over the storage type on `accelerator`."""
    reason = cannot(config.lora, config.precision.storage, accelerator)
    if reason is not None:
        raise ConfigError(reason)
