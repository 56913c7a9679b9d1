"""The small files beside a model's weights: its shape, and whether it has a chat template. No torch."""

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.facts.named_models import named_option
from danube_sweep.config.schema import Shape
from danube_sweep.decoding import json_of
from danube_sweep.errors import ModelError, UnknownArchitecture

CONFIG = "config.json"
JINJA, SETTINGS = "chat_template.jinja", "tokenizer_config.json"

_NO_SUCH_MODEL = (
    "model.path={}: the hub has no such model, or the model needs a login; check the name, log in (hf auth "
    "login), or give a "
    "folder"
)

_UNSTATED: dict[str, dict[str, Any]] = {
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072},
    "qwen2": {"use_sliding_window": False, "max_position_embeddings": 32768},
    "phi3": {"max_position_embeddings": 4096},
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "sliding_window": 4096, "tie_word_embeddings": True},
    "llama": {"max_position_embeddings": 2048},
    "deberta-v2": {"max_position_embeddings": 512},
}
"""transformers' value for a key that config.json leaves out; null counts as a value."""


def shape_of(described: Mapping[str, Any]) -> Shape:
    """The shape that a config.json states. Raises UnknownArchitecture, or KeyError for a size that it lacks."""
    kind = str(described.get("model_type"))
    if kind not in FAMILIES:
        raise UnknownArchitecture(f"model_type {kind} cannot be planned; there are {', '.join(FAMILIES)}")
    stated = {**_UNSTATED[kind], **described}
    heads = int(stated["num_attention_heads"])
    if not stated.get("use_sliding_window", True):  # Qwen2 states a window that it does not use
        stated["sliding_window"] = None
    derived = {"num_key_value_heads": heads, "head_dim": int(stated["hidden_size"]) // heads}
    known = {**derived, **{key: value for key, value in stated.items() if value is not None}}
    known.setdefault("rope_theta", (stated.get("rope_parameters") or {}).get("rope_theta"))
    known["tie_word_embeddings"] = bool(stated.get("tie_word_embeddings", FAMILIES[kind].encoder))
    for name in ("intermediate_size", "num_hidden_layers", "vocab_size"):
        known[name]
    values = {field.name: known.get(field.name) for field in fields(Shape)}
    return Shape(**{name: value for name, value in values.items() if value is not None})


def checkpoint_shape(path: str, revision: str | None) -> Shape:
    """The shape of a folder's or a hub name's model. Raises ModelError, in one line, where it cannot be known."""
    file = small_file(path, revision, CONFIG)
    try:
        if file is None:
            raise KeyError("there is none")
        return shape_of(json_of(file))
    except UnknownArchitecture as error:
        raise ModelError(f"model.path={path}: {str(error).replace('planned', 'trained by model=auto')}") from error
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"model.path={path}: it has no usable config.json ({_reason(error)}); give a complete copy of the model"
        ) from error


def _reason(error: BaseException) -> str:
    match error:
        case OSError():
            return "there is none"
        case KeyError(args=(str(key),)) if " " not in key:
            return f"it lacks {key}"
    return str(error).strip("'").splitlines()[0]


def has_chat_template(path: str, revision: str | None) -> bool:
    """Whether the tokenizer of a folder or a hub name has a chat template. Raises ModelError."""
    jinja, described = (small_file(path, revision, name) for name in (JINJA, SETTINGS))
    if jinja is not None or described is None:
        return jinja is not None
    try:
        return bool(json_of(described).get("chat_template"))
    except (AttributeError, OSError, ValueError) as error:
        raise ModelError(f"model.path={path}: its {described.name} is damaged; download the model again") from error


def small_file(path: str, revision: str | None, name: str) -> Path | None:
    """A file of a folder or of a hub name, from the cache or else fetched; None if the model has no such file.

    Raises ModelError, with the way out, for a hub name that is not in the cache and that the hub does not give.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    return _hub_file(path, revision, name)


@lru_cache(maxsize=64)
def _hub_file(path: str, revision: str | None, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(path, name, revision=revision)
        settings = try_to_load_from_cache(path, SETTINGS, revision=revision)
    except HFValidationError as error:
        raise ModelError(_NO_SUCH_MODEL.format(path)) from error
    if cached is not None:
        return Path(cached) if isinstance(cached, str) else None
    try:
        known = _listed(path, revision)
        return Path(hf_hub_download(path, name, revision=revision)) if name in known else None
    except ModelError:
        if name == JINJA and isinstance(settings, str):
            return None  # without a network it is the cached copy that trains, and it has no such file
        raise
    except (OSError, ValueError) as error:
        raise _unreachable(path) from error


@lru_cache(maxsize=64)
def _listed(path: str, revision: str | None) -> frozenset[str]:
    """The files of a model on the hub. Raises ModelError."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = HfApi().model_info(path, revision=revision, timeout=10).siblings
    except RepositoryNotFoundError as error:
        raise ModelError(_NO_SUCH_MODEL.format(path)) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model.revision={revision}: {path} has no such branch, tag or commit") from error
    except (
        Exception
    ) as error:  # the errors of a lost connection are those of whatever HTTP library the hub's client has
        raise _unreachable(path) from error
    return frozenset(one.rfilename for one in found or ())


def _unreachable(path: str) -> ModelError:
    return ModelError(
        f"model.path={path}: its {CONFIG} is not in the cache and the hub cannot be reached; {_way_out(path)}"
    )


def _way_out(path: str) -> str:
    named = named_option(path)
    other = f"write {named}" if named else "take a named option (danube-sweep --help)"
    return f"download it once (hf download {path}), give a folder, or {other}"
