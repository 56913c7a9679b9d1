"""model=auto: the shape and the variant that a model's own files state, put into the config before it is checked."""

from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from danube_sweep.config.facts.architectures import FAMILIES
from danube_sweep.config.facts.checkpoint_files import checkpoint_shape, has_chat_template
from danube_sweep.config.facts.hub_commits import is_folder, known_commit
from danube_sweep.config.identity import NO_FOLDER, names_a_folder
from danube_sweep.config.model_folder import check_model_folder
from danube_sweep.config.no_urls import refuse_url
from danube_sweep.config.require import require
from danube_sweep.config.schema import Init, Shape
from danube_sweep.errors import ModelError

AUTO = "auto"
_UNSTATED = Shape()


def fill_from_checkpoint(config: DictConfig) -> None:
    """Completes the config of a trial with model=auto; leaves every other as it is.

    Raises ModelError for a model whose files are not there or not supported, ConfigError for a field that model=auto
    reads itself.
    """
    model = config.get("model")
    if model is None or OmegaConf.is_missing(model.shape, "model_type") or model.shape.model_type != AUTO:
        return
    path = _path(model)
    for name in (field.name for field in fields(Shape) if field.name != "model_type"):
        stated = not OmegaConf.is_missing(model.shape, name) and model.shape[name] != getattr(_UNSTATED, name)
        require(not stated, f"model.shape.{name}: model=auto reads the shape from config.json; leave it out")
    require(
        not model.own_template or not any(model.chat.values()),
        "model.chat: model=auto takes the tokenizer's own chat template; leave it out or set model.own_template=false",
    )
    if is_folder(path) and model.init is not Init.random:
        check_model_folder(Path(path).expanduser())
    revision = model.commit or known_commit(path, model.revision) or model.revision
    model.shape = OmegaConf.structured(checkpoint_shape(path, revision))
    _settle_variant(model, path, revision)


def _path(model: DictConfig) -> str:
    path = model.path
    require(path is not None, "model.path is required: model=auto reads a folder or a hub name; give model.path=…")
    refuse_url(path, "model.path")
    if not is_folder(path) and names_a_folder(path):
        raise ModelError(NO_FOLDER.format(path))
    return str(path)


def _settle_variant(model: DictConfig, path: str, revision: str | None) -> None:
    templated = model.init is not Init.random and has_chat_template(path, revision)
    require(
        model.variant != "chat" or templated or any(model.chat.values()),
        f"model.variant=chat: the tokenizer of {path} has no chat template; use model.variant=base",
    )
    if model.variant == AUTO:
        model.variant = "chat" if templated else "base"
    model.variants = [variant for variant in model.variants if variant != AUTO]


def usual_lr(shape: Shape) -> float:
    """A learning rate for LoRA on a model of this shape: the one of the named options of its size."""
    if FAMILIES[shape.model_type].encoder:
        return 2e-5 if shape.hidden_size < 1024 else 1e-5
    return 2e-4 if shape.hidden_size < 2048 else 1e-4
