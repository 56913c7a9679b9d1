"""The checks that need no file, no network and no torch. Past them, the config is trusted."""

import dataclasses
import math
from pathlib import Path

from danube_sweep import extension
from danube_sweep.adapters import FOUR_BIT, QUANTISED, cannot
from danube_sweep.architecture import FAMILIES
from danube_sweep.errors import ConfigError
from danube_sweep.schema import (
    OPTIONS,
    ArenaData,
    BradleyTerryHead,
    CausalHead,
    ClassifierHead,
    Comparison,
    Compute,
    Config,
    Constant,
    Data,
    Device,
    FullFinetune,
    GeneratedData,
    Head,
    Init,
    LayeredHead,
    LinearAdapter,
    LMHead,
    Model,
    NoAdapter,
    Optimizer,
    PairsData,
    Precision,
    PreferenceHead,
    ScheduleFree,
    Sgd,
    Shape,
    Storage,
    TableColumns,
    Target,
    TextData,
    TokenHead,
    TokensData,
    Tracking,
    Trainer,
    WandbTracking,
    Wsd,
    own_parts,
)
from danube_sweep.validate_adapter import validate_adapter
from danube_sweep.validate_parts import validate_parts

BYTES_AND_MARKS = 259
"""The smallest vocabulary of a tokenizer that is trained on the run's own text."""

AUTO = "auto"


def validate(config: Config) -> None:
    """Raises ConfigError for the first value or combination that cannot work."""
    _finite(config, "")
    _seed("seed", config.seed)
    _model(config.model)
    _precision(config.precision)
    _lora(config)
    _head(config)
    _optimizer(config.optimizer)
    _schedule_free(config)
    extension.check(config.head)
    extension.check(config.optimizer)
    _require(
        0 <= config.schedule.warmup < 1,
        f"schedule.warmup must be at least 0 and under 1, got {config.schedule.warmup}: it is a share of all steps",
    )
    if isinstance(config.schedule, Wsd):
        share = config.schedule.warmup + config.schedule.decay
        _require(
            config.schedule.decay > 0 and share <= 1,
            f"schedule.decay must be above 0, and at most 1 together with schedule.warmup, got {config.schedule.decay}",
        )
    _data(config.data)
    limit = config.model.shape.max_position_embeddings
    _require(
        _own_config(config.model) or config.data.max_length <= limit,
        f"data.max_length must be at most {limit}, the model's last position, got {config.data.max_length}",
    )
    _trainer(config.trainer)
    _require(
        config.objective in config.head.metrics,
        f"trainer.best_by={config.trainer.best_by}: this head does not report it; there are "
        f"{', '.join(config.head.metrics)}",
    )
    _require(
        not config.trainer.score_test or own_parts(config.data)[1] is not None or config.data.test_fraction > 0,
        "trainer.score_test=true needs a test part: give data.test_path or data.test_fraction",
    )
    _device(config)
    _tracking(config.tracking)


def _own_config(model: Model) -> bool:
    # A local folder's config.json wins over the shape.
    return model.init is not Init.random and model.path is not None and Path(model.path).expanduser().is_dir()


def check_types(precision: Precision, types: list[str], device: str) -> None:
    """Raises ConfigError if `device` does not have the compute type, naming one that it has."""
    asked = precision.compute.value
    if not types or asked in types:
        return
    other = next(name for name in ("bf16", "fp16", "fp32") if name in types)
    way_out = (
        f"precision.compute={other}"
        if precision.storage in QUANTISED
        else f"precision={other} or precision=nf4 precision.compute={other}"
    )
    raise ConfigError(f"precision.compute={asked}: {device} has no native {asked}; use {way_out}")


def check_runs(device: Device) -> None:
    """Raises ConfigError for a device that trials can only be planned for."""
    if device.cannot_run is not None:
        raise ConfigError(f"device: trials can be planned for {device.name}, not run on it: {device.cannot_run}")


def check_adapter(config: Config, accelerator: str) -> None:
    """Raises ConfigError for an adapter that does not work over the storage type on `accelerator`."""
    reason = cannot(config.lora, config.precision.storage, accelerator)
    if reason is not None:
        raise ConfigError(reason)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _finite(node: object, prefix: str) -> None:
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            _finite(value, f"{prefix}{field.name}.")
        elif isinstance(value, float):
            _require(math.isfinite(value), f"{prefix}{field.name} must be a finite number, got {value}")


def _seed(name: str, value: int) -> None:
    _require(0 <= value < 2**32, f"{name} must be at least 0 and under 2**32, got {value}")


def _model(model: Model) -> None:
    _seed("model.init_seed", model.init_seed)
    _require(
        model.variant in model.variants,
        f"model.variant={model.variant}: there is {' and '.join(model.variants)}",
    )
    _require(
        model.init is not Init.pretrained or model.path is not None,
        "model.init=pretrained needs weights: give model.path, a hub name or a local folder",
    )
    _shape(model.shape)
    _require(
        (model.path is not None and model.init is not Init.random) or model.shape.vocab_size >= BYTES_AND_MARKS,
        f"model.shape.vocab_size must be at least {BYTES_AND_MARKS} (every byte and three special tokens) "
        f"with random weights, got {model.shape.vocab_size}",
    )


def _shape(shape: Shape) -> None:
    _require(
        shape.model_type in FAMILIES,
        f"model.shape.model_type must be one of {', '.join(FAMILIES)}, got {shape.model_type}",
    )
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    for name in (*sizes, "sliding_window"):
        value = getattr(shape, name)
        _require(value is None or value >= 1, f"model.shape.{name} must be at least 1, got {value}")
    _require(
        shape.head_dim >= 2 and shape.head_dim % 2 == 0,
        f"model.shape.head_dim must be even and at least 2, got {shape.head_dim}",
    )
    _require(
        not FAMILIES[shape.model_type].encoder or shape.num_key_value_heads == shape.num_attention_heads,
        f"model.shape.num_key_value_heads of an encoder is num_attention_heads={shape.num_attention_heads}, "
        f"got {shape.num_key_value_heads}",
    )
    _require(shape.rope_theta > 0, f"model.shape.rope_theta must be above 0, got {shape.rope_theta}")
    _require(
        shape.num_attention_heads % max(shape.num_key_value_heads, 1) == 0 and shape.num_key_value_heads >= 1,
        f"model.shape.num_key_value_heads must divide num_attention_heads={shape.num_attention_heads}, "
        f"got {shape.num_key_value_heads}",
    )


def _precision(precision: Precision) -> None:
    _require(
        not precision.double_quant or precision.storage in FOUR_BIT,
        f"precision.double_quant needs 4-bit storage, got precision.storage={precision.storage.value}; "
        "use precision=nf4_dq",
    )
    storage, compute = precision.storage, precision.compute
    mixed = storage in (Storage.bf16, Storage.fp16) and storage.value != compute.value
    _require(
        not mixed,
        f"precision.storage={storage.value} computes in {storage.value}, got precision.compute={compute.value}; "
        f"use precision={storage.value} or precision.storage=fp32",
    )


def _lora(config: Config) -> None:
    storage = config.precision.storage
    match config.lora:
        case LinearAdapter() as adapter:
            validate_adapter(adapter, None if _own_config(config.model) else config.model.shape)
        case FullFinetune():
            _require(
                storage not in QUANTISED,
                f"lora=full cannot train weights stored in {storage.value}; use precision=bf16 or lora=lora",
            )
            _require(
                storage is not Storage.fp16,
                "lora=full cannot train weights stored in fp16 (their gradients cannot be unscaled); "
                "use precision.storage=fp32 precision.compute=fp16",
            )
        case NoAdapter():
            _require(
                not isinstance(config.head, LMHead | CausalHead),
                "lora=none leaves nothing to train: this head has no weights of its own; use lora=lora",
            )
    check_adapter(config, config.device.accelerator)


def _head(config: Config) -> None:
    head, data = config.head, config.data
    _require(head.lr is None or head.lr > 0, f"head.lr must be above 0, got {head.lr}; null takes optimizer.lr")
    if isinstance(head, ClassifierHead):
        smoothing = head.label_smoothing
        _require(0 <= smoothing < 1, f"head.label_smoothing must be at least 0 and under 1, got {smoothing}")
    if isinstance(head, LayeredHead):
        _require(
            head.hidden is None or head.hidden >= 1,
            f"head.hidden must be at least 1, got {head.hidden}; null for no hidden layer",
        )
        _require(0 <= head.dropout < 1, f"head.dropout must be at least 0 and under 1, got {head.dropout}")
    reads_words = isinstance(head, CausalHead | LMHead)
    _require(
        not (reads_words and FAMILIES[config.model.shape.model_type].encoder) or _own_config(config.model),
        "head=causal and head=lm read an output layer of words, which an encoder has not; use sequence or preference",
    )
    _reads(head, data)
    three = isinstance(data, ArenaData | GeneratedData)
    if isinstance(head, CausalHead) and head.words is not None and three:
        _require(len(head.words) == 3, f"head.words needs 3 words (A better, B better, tie), got {len(head.words)}")


def _reads(head: Head, data: Data) -> None:
    # Whether the head and the data go together.
    _require(
        isinstance(head, LMHead) == isinstance(data, TextData),
        "head=lm reads data=text and no other" if isinstance(head, LMHead) else "data=text has no labels: use head=lm",
    )
    _require(
        isinstance(head, TokenHead) == isinstance(data, TokensData),
        "head=token reads data=tokens and no other"
        if isinstance(head, TokenHead)
        else "data=tokens has a label for every word: use head=token",
    )
    _require(
        isinstance(data, Comparison) or not isinstance(head, PreferenceHead | BradleyTerryHead),
        "head=preference and head=bradley_terry_ties compare two answers: use data=arena, data=pairs or "
        "data=generated, or head=sequence",
    )
    if head.target in (Target.number, Target.ordered, Target.many):
        _require(
            isinstance(data, TableColumns),
            "head=regression, head=ordinal and head=multilabel read one text and its label: use data=table",
        )
    if isinstance(data, TableColumns) and head.target is Target.number:
        for name in ("classes", "soft_label_columns"):
            value = getattr(data, name)
            _require(value is None, f"data.{name}: head=regression learns a number, which has none; give null")


def _optimizer(optimizer: Optimizer) -> None:
    _require(0 < optimizer.lr < 1e38, f"optimizer.lr must be above 0 and under 1e38, got {optimizer.lr}")
    _require(
        optimizer.weight_decay >= 0,
        f"optimizer.weight_decay must be at least 0, got {optimizer.weight_decay}",
    )
    for name in ("beta1", "beta2", "beta3", "momentum"):
        value = getattr(optimizer, name, 0.0)
        _require(0 <= value < 1, f"optimizer.{name} must be at least 0 and under 1, got {value}")
    for name in ("eps", "slow", "clip"):
        value = getattr(optimizer, name, 1.0)
        _require(value > 0, f"optimizer.{name} must be above 0, got {value}")
    if isinstance(optimizer, Sgd):
        _require(
            optimizer.momentum > 0 or not optimizer.nesterov,
            "optimizer.nesterov=true looks ahead along the velocity: give optimizer.momentum above 0",
        )


def _schedule_free(config: Config) -> None:
    if not isinstance(config.optimizer, ScheduleFree):
        return
    beta1 = config.optimizer.beta1
    _require(beta1 > 0, f"optimizer.beta1 of optimizer=schedulefree must be above 0, got {beta1}")
    named = next(name for name, kind in OPTIONS["schedule"].items() if type(config.schedule) is kind)
    _require(
        isinstance(config.schedule, Constant),
        f"schedule={named}: optimizer=schedulefree averages its steps instead of lowering their rate; "
        "use schedule=constant, whose warmup it follows",
    )


def _data(data: Data) -> None:
    _require(data.max_length >= 16, f"data.max_length must be at least 16 tokens, got {data.max_length}")
    _require(data.max_rows is None or data.max_rows >= 2, f"data.max_rows must be at least 2, got {data.max_rows}")
    _seed("data.order_seed", data.order_seed)
    _seed("data.split_seed", data.split_seed)
    validate_parts(data)
    match data:
        case GeneratedData():
            _require(data.rows >= 10, f"data.rows must be at least 10, got {data.rows}")
            _seed("data.seed", data.seed)
            _require(0 <= data.noise < 1, f"data.noise must be at least 0 and under 1, got {data.noise}")
        case TableColumns(classes=list(classes)):
            _require(
                len(set(classes)) == len(classes) >= 2,
                f"data.classes needs at least two different names, got {classes}",
            )
        case TableColumns(soft_label_columns=list(columns)):
            _require(len(columns) >= 2, f"data.soft_label_columns needs at least two columns, got {columns}")
        case PairsData():
            labels = [data.a_label, data.b_label, *data.tie_labels]
            _require(
                len(set(labels)) == len(labels),
                f"data.a_label, data.b_label and data.tie_labels must all differ, got {', '.join(labels)}",
            )
        case TokensData():
            _require(
                0 <= data.overlap < data.max_length,
                f"data.overlap must be at least 0 and under data.max_length={data.max_length}, got {data.overlap}",
            )
            _require(
                data.classes is None or len(set(data.classes)) == len(data.classes) >= 2,
                f"data.classes needs at least two different names, got {data.classes}",
            )
        case TextData():
            _require(data.path != [], "data.path needs at least one file, got []")
            _require(data.test_fraction == 0, "data.test_fraction: data=text has no test part; give 0")


def _trainer(trainer: Trainer) -> None:
    _require(trainer.epochs > 0, f"trainer.epochs must be above 0, got {trainer.epochs}")
    micro, effective = trainer.micro_batch, trainer.effective_batch
    _require(
        micro == AUTO or (isinstance(micro, int) and not isinstance(micro, bool)),
        f"trainer.micro_batch must be a whole number or auto, got {micro}",
    )
    _require(effective >= 1, f"trainer.effective_batch must be at least 1, got {effective}")
    for name in ("max_steps", "eval_batch", "validate_every", "patience", "log_every"):
        value = getattr(trainer, name)
        _require(value is None or value >= 1, f"trainer.{name} must be at least 1, got {value}")
    _require(micro == AUTO or micro >= 1, f"trainer.micro_batch must be at least 1, got {micro}")
    _require(
        micro == AUTO or (effective >= micro and effective % micro == 0),
        f"trainer.effective_batch must be a multiple of trainer.micro_batch={micro}, got {effective}",
    )
    _require(
        trainer.clip_norm is None or trainer.clip_norm > 0,
        f"trainer.clip_norm must be above 0, got {trainer.clip_norm}; null does not clip",
    )


def _device(config: Config) -> None:
    device: Device = config.device
    names = ("auto", "cpu", "cuda")
    _require(device.accelerator in names, f"device.accelerator must be auto, cpu or cuda, got {device.accelerator}")
    known = {compute.value for compute in Compute}
    _require(
        set(device.types) <= known,
        f"device.types must be out of {', '.join(sorted(known))}, got {device.types}",
    )
    _require(
        device.threads is None or device.threads >= 1,
        f"device.threads must be at least 1, got {device.threads}",
    )
    for name in ("memory_gib", "memory_limit_gib", "bandwidth_gb_s", "tflops_fp32", "tflops_16bit", "launch_us"):
        value = getattr(device, name)
        _require(value is None or value > 0, f"device.{name} must be above 0, got {value}")
    check_types(config.precision, device.types, device.name)


def _tracking(tracking: Tracking) -> None:
    modes = ("auto", "online", "offline", "disabled")
    if isinstance(tracking, WandbTracking):
        _require(tracking.mode in modes, f"tracking.mode must be one of {', '.join(modes)}, got {tracking.mode}")
        _require(
            tracking.timeout_s > 0,
            f"tracking.timeout_s must be above 0, got {tracking.timeout_s}; "
            "to wait for no server use tracking.mode=offline",
        )
        for tag in tracking.tags:
            _require(1 <= len(tag) <= 64, f"tracking.tags: W&B takes 1 to 64 characters, {tag!r} has {len(tag)}")
