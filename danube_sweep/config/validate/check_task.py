"""The checks of the head, the data, and whether they go together."""

from danube_sweep.config.facts.architectures import FAMILIES, cannot_be_flat
from danube_sweep.config.require import check_seed, require
from danube_sweep.config.schema import (
    Bias,
    ClassifierHead,
    Comparison,
    Config,
    Data,
    ExtraRows,
    FullFinetune,
    Head,
    Labelled,
    LayeredHead,
    LinearAdapter,
    Lora,
    RowLayout,
    TableColumns,
    Target,
)
from danube_sweep.config.validate.check_parts import validate_parts
from danube_sweep.config.validate.common_checks import own_config


def validate_head(config: Config) -> None:
    """Raises ConfigError for a head that cannot be, or that the model or the data do not suit."""
    head, data = config.head, config.data
    require(head.lr is None or head.lr > 0, f"head.lr must be above 0, got {head.lr}; null takes optimizer.lr")
    if isinstance(head, ClassifierHead):
        smoothing = head.label_smoothing
        require(0 <= smoothing < 1, f"head.label_smoothing must be at least 0 and under 1, got {smoothing}")
    if isinstance(head, LayeredHead):
        require(
            head.hidden is None or head.hidden >= 1,
            f"head.hidden must be at least 1, got {head.hidden}; null for no hidden layer",
        )
        require(0 <= head.dropout < 1, f"head.dropout must be at least 0 and under 1, got {head.dropout}")
    require(
        not (head.reads_lm_head and FAMILIES[config.model.shape.model_type].encoder) or own_config(config.model),
        "head=causal and head=lm need a language-model head, which an encoder lacks; use head=sequence or "
        "head=preference",
    )
    _reads(head, data)
    if data.layout is RowLayout.flat and not own_config(config.model):
        reason = cannot_be_flat(config.model.shape.model_type)
        require(reason is None, str(reason))
    if data.cache_prefix:
        _has_prefix(config)
    head.check_trial(config)


def _reads(head: Head, data: Data) -> None:
    # Whether the head and the data go together.
    of_text, of_words = head.target is Target.nothing, head.target is Target.words
    require(
        of_text == (data.labelled is Labelled.nothing),
        "head=lm needs data=text" if of_text else "data=text has no labels; use head=lm",
    )
    require(
        of_words == (data.labelled is Labelled.words),
        "head=token needs data=tokens" if of_words else "data=tokens has a label for every word; use head=token",
    )
    require(
        isinstance(data, Comparison) or not head.compares,
        "head=preference and head=bradley_terry_ties compare two answers; use data=arena, data=pairs or "
        "data=generated, or head=sequence",
    )
    if head.target in (Target.number, Target.ordered, Target.many):
        require(
            isinstance(data, TableColumns),
            "head=regression, head=ordinal and head=multilabel read one text and its label; use data=table",
        )
    if isinstance(data, ExtraRows) and head.target is Target.number:
        require(
            data.extra_temperature == 1,
            "data.extra_temperature divides log probabilities, and head=regression predicts a number; give 1",
        )
    if isinstance(data, TableColumns) and head.target is Target.number:
        for name in ("classes", "soft_label_columns"):
            value = getattr(data, name)
            require(
                value is None, f"data.{name}: head=regression predicts a number, so there are no classes; give null"
            )


def _has_prefix(config: Config) -> None:
    adapter = config.lora
    given = "data.cache_prefix=true keeps what comes out of the blocks below the first that trains"
    encoder = FAMILIES[config.model.shape.model_type].encoder
    require(not encoder, f"{given}; an encoder's drop out some of it, anew every time: give false")
    require(not isinstance(adapter, FullFinetune), f"{given}; with lora=full all train: use lora.last_k or give false")
    if isinstance(adapter, LinearAdapter):
        below = min(adapter.layers) > 0 if adapter.layers is not None else adapter.last_k is not None
        if adapter.layers is None and not own_config(config.model):
            below = below and adapter.last_k != config.model.shape.num_hidden_layers
        require(below, f"{given}, and there is none: use lora=none, lora.last_k or lora.layers above 0, or give false")
    biased = isinstance(adapter, Lora) and adapter.bias is Bias.all
    require(not biased, f"{given}, and lora.bias=all trains every block's biases: use lora.bias=none or give false")


def validate_data(data: Data) -> None:
    """Raises ConfigError for data that cannot be read or divided as asked."""
    require(data.max_length >= 16, f"data.max_length must be at least 16 tokens, got {data.max_length}")
    require(data.max_rows is None or data.max_rows >= 2, f"data.max_rows must be at least 2, got {data.max_rows}")
    if data.order_seed is not None:
        check_seed("data.order_seed", data.order_seed)
    check_seed("data.split_seed", data.split_seed)
    validate_parts(data)
    data.check()
