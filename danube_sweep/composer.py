"""Overrides in, a checked `Config` out, by Hydra; no torch. Below there are dataclasses and no DictConfig."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast, final

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    OmegaConfBaseException,
)

from danube_sweep import paths
from danube_sweep.config import identity, offered_options
from danube_sweep.config.explain import explain, options_of, unknown_option
from danube_sweep.config.facts.adapters import sgd_rate
from danube_sweep.config.facts.checkpoint_files import checkpoint_shape
from danube_sweep.config.from_checkpoint import usual_lr
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Adapter, Config, Head, Pruner, Settings, Sweep, objective
from danube_sweep.config.schema.run_fields import FIGURES
from danube_sweep.config.stored import plain_config
from danube_sweep.config.typed import on_schema, typed_config, typed_on_schema, typed_sweep
from danube_sweep.config.unknown_fields import refuse_unknown_fields
from danube_sweep.config.validate import check_own_accelerator
from danube_sweep.errors import ConfigError, UserError
from danube_sweep.os_errors import as_ours
from danube_sweep.planner.planned_architecture import within_row_limit
from danube_sweep.planner.planned_device import with_compute
from danube_sweep.planner.what_fits import resolved
from danube_sweep.storage.redaction import secret_address

VERSION_BASE = "1.3"
_CHOICE = re.compile(rf"\+{{0,2}}({'|'.join((*OPTIONS, *SWEEP_OPTIONS, 'experiment'))})=([^{{].*)")
_LIST = re.compile(rf"\+{{0,2}}({'|'.join((*OPTIONS, *SWEEP_OPTIONS))}|experiment|hydra/\w+)=(\[.*)", re.S)
_NAMES = re.compile(r"\[\s*[a-z_][\w/-]*(\s*,\s*[a-z_][\w/-]*)*\s*\]", re.I)
_LONGEST_OPTION = 200
"""A file's name has at most 255 bytes."""
_GPU = re.compile(r"(?:gpu|cuda)(?::(\d+))?")
_FIELD = re.compile(r"\+{0,2}device\.(\w+)=")
_NUMBER = re.compile(r"null|true|false|[-+.\d]+(e[-+]?\d+)?", re.I)
_stored: dict[tuple[str, str], type] = {}
"""What Hydra's store has of ours, by group and name: storing them again is a quarter of a composition."""


def register() -> None:
    """Makes the schemas and our resolvers known to Hydra; twice does no harm."""
    _store("schema", "config", Settings)
    for group in (*OPTIONS, *SWEEP_OPTIONS):
        for name, schema in options_of(group).items():
            _store(f"schema/{group}", name, schema)
        for name, offer in offered_options.offers(group).usable.items():
            _store(group, name, offer.extension.schema)
    OmegaConf.register_new_resolver("trial_hash", _hash_or_invalid, replace=True)
    OmegaConf.register_new_resolver("times", lambda value, factor: value * factor, replace=True)
    OmegaConf.register_new_resolver("sgd_rate", _sgd_rate, replace=True)
    OmegaConf.register_new_resolver("objective", _objective, replace=True)
    OmegaConf.register_new_resolver("usual_lr", _usual_lr, replace=True)
    OmegaConf.register_new_resolver("if_chat", lambda name, suffix: suffix if name == "chat" else "", replace=True)


def _store(group: str, name: str, schema: type) -> None:
    if _stored.get((group, name)) is not schema:
        ConfigStore.instance().store(group=group, name=name, node=schema)
        _stored[group, name] = schema


def _objective(*, _root_: DictConfig) -> str:
    head = cast(type[Head], OmegaConf.get_type(_root_, "head"))
    return objective(head.target, _root_.trainer.best_by)


def _sgd_rate(*, _root_: DictConfig) -> float:
    return sgd_rate(cast(type[Adapter], OmegaConf.get_type(_root_, "lora")), _root_.lora.get("type"))


def _usual_lr(*, _root_: DictConfig) -> float:
    # That of model=auto, whose shape is known once it has been filled in.
    model = _root_.model
    filled = not OmegaConf.is_missing(model.shape, "hidden_size")
    return usual_lr(model.shape if filled else checkpoint_shape(model.path, model.revision))


def _hash_or_invalid(*, _root_: DictConfig) -> str:
    # Names the run folder. A config with a mistake still needs a name here: its error comes from the run itself.
    try:
        return identity.trial_hash(to_config(_root_))[:8]
    except UserError:
        return "invalid"


def to_config(config: DictConfig) -> Config:
    """The typed and checked trial in a composed config, without the parts of Hydra and the sweep.

    precision.compute=auto and trainer.micro_batch=auto are settled here, for the device that is configured or present,
    and a default data.max_length for the model's positions.

    Raises ConfigError, in one line, for missing values, failing interpolations and impossible combinations.
    """
    return _resolved(typed_config(config), _slots(config))


def _resolved(trial: Config, slots: int | None) -> Config:
    _check_secrets(trial)
    check_own_accelerator(trial.device)
    return resolved(with_compute(within_row_limit(trial)), slots)


def _check_secrets(trial: Config) -> None:
    # Stored without it, the trial would be another one when it is resumed.
    address = secret_address(plain_config(trial))
    if address is not None:
        raise ConfigError(
            f"{address}: its value looks like a secret, which no file of a run may hold; give another value, or give "
            f"it by the name of a variable: {address}='${{oc.env:MY_VALUE}}'"
        )


def _slots(config: DictConfig) -> int | None:
    with _explained():
        return cast("int | None", config.get("sweep", {}).get("slots"))


def choices(overrides: Sequence[str]) -> list[str]:
    """The overrides, those that choose a group's option without the + that Hydra would refuse: each group has one.

    `device=gpu` is `device=cuda`, and `device=cuda:1` the GPU that torch calls so, also in a list. Raises ConfigError
    for an option that is a number, which Hydra refuses without naming it, and for a list of GPUs and others.
    """
    return [word for one in overrides for word in _gpu(one) or [_choice(one)]]


def _gpu(override: str) -> list[str]:
    group, _, value = override.partition("=")
    if group.lstrip("+") != "device":
        return []
    named = [one.strip() for one in value.split(",")]
    matches = [_GPU.fullmatch(one) for one in named]
    places = [match[1] for match in matches if match is not None]
    if not places:
        return []
    if all(place is None for place in places):
        return [f"device={','.join('cuda' if match else one for match, one in zip(matches, named, strict=True))}"]
    if len(places) < len(named):
        other = next(one for one, match in zip(named, matches, strict=True) if match is None)
        raise ConfigError(
            f"{override}: cuda:N stands in a list with other GPUs of this machine alone; use device=cuda,{other}, or "
            "choose the GPUs by CUDA_VISIBLE_DEVICES"
        )
    return ["device=cuda", f"device.index={','.join(place or '0' for place in places)}"]


def _choice(override: str) -> str:
    _refuse_list(override)
    match = _CHOICE.fullmatch(override)
    if match is None:
        return override
    group, value = match[1], match[2]
    longest = max(value.split(","), key=len)
    if len(longest) > _LONGEST_OPTION:
        raise ConfigError(f"{group}={longest[:60]}…: no such option; its name has {len(longest)} letters")
    if group != "experiment" and _NUMBER.fullmatch(value):
        packaged = {file.stem for file in (paths.conf_dir() / group).glob("*.yaml")}
        names = sorted(packaged | offered_options.offers(group).usable.keys())
        raise ConfigError(unknown_option(group, value, names))
    return f"{group}={value}"


def _refuse_list(override: str) -> None:
    # Hydra merges the options of a list, and ends in a traceback where an item is no name. Experiments may be merged.
    match = _LIST.fullmatch(override)
    if match is None or (match[1] == "experiment" and _NAMES.fullmatch(match[2])):
        return
    raise ConfigError(
        f"{match[1]}={match[2]}: it takes the name of one option, not a list; to train one after the other, give -m "
        f"and {match[1]}=FIRST,SECOND"
    )


def parse_sweep(overrides: Sequence[str]) -> list[Override]:
    """The overrides of a sweep; a glob means the packaged options. Raises ConfigError in one line."""
    register()
    with _explained(), _hydra(paths.conf_dir()) as loader:
        return OverridesParser.create(config_loader=loader).parse_overrides(choices(overrides))


def first_swept(overrides: Sequence[str]) -> str | None:
    """The first override that names several values; None if there is none. Raises ConfigError in one line."""
    parsed = parse_sweep([word for word in overrides if "=" in word])
    return next((str(one.input_line) for one in parsed if one.is_sweep_override()), None)


def check_fields(overrides: Sequence[str]) -> None:
    """Raises ConfigError, in one line, for what cannot be composed, unknown fields included; values stay unchecked."""
    with _explained():
        refuse_unknown_fields(_load(choices(overrides), None))


def compose(overrides: Sequence[str] = ()) -> Config:
    """What `danube-sweep OVERRIDES…` would train. Raises ConfigError in one line."""
    with _explained():
        given = choices(overrides)
        config = with_stated(_load(given, None), given)
    return to_config(config)


def with_stated(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The composed config, in which device.stated has the figures of the device that these overrides give.

    A figure that equals the default would else look as if nobody had given it.
    """
    found = [match[1] for one in overrides if (match := _FIELD.match(one)) and match[1] in FIGURES]
    if found:
        before = config.device.get("stated") or []
        OmegaConf.update(config, "device.stated", sorted({*before, *found}), force_add=True)
    return config


@final
class Composer:
    """Composes many trials fast: Hydra composes each combination of groups once, values are set on a copy of it.

    `load` composes a list of overrides in full; without it, Hydra composes `config_name` from the packaged options and
    those in `config_dir`. `ours`: `load` knows no options but the packaged ones.
    """

    def __init__(
        self,
        load: Callable[[list[str]], DictConfig] | None = None,
        config_dir: Path | None = None,
        config_name: str = "config",
        ours: bool = True,
    ) -> None:
        self._ours = ours and config_dir is None and config_name == "config"
        self._load = load or partial(_load, config_dir=config_dir, config_name=config_name)
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._known: dict[tuple[str, ...], dict[tuple[str, str | None], tuple[DictConfig, frozenset[Any]]]] = {}
        """Words that are no option -> option of a group -> what Hydra composed with it, and all options of that."""
        self._trials: dict[tuple[str, ...], DictConfig] = {}
        """Words that are no values -> the trial that they make, on its schema."""
        self._slots: dict[tuple[str, ...], int | None] = {}
        """Words that are no values of a trial -> the sweep's slots."""
        self._parser = OverridesParser.create()
        self._parse = lru_cache(maxsize=10_000)(lambda text: self._parser.parse_overrides([text])[0])

    def trial(self, overrides: Sequence[str]) -> Config:
        """The checked trial of a cell. Raises ConfigError in one line."""
        with suppress(UserError, HydraException, OmegaConfBaseException, ValueError):  # said of the whole config
            parsed = [self._parse(override) for override in choices(overrides)]
            if not any(_depends_on_its_place(one) for one in parsed):
                return self._trial(parsed)
        return to_config(self._composed(overrides))

    def _trial(self, parsed: Sequence[Override]) -> Config:
        # As `to_config(self._composed(overrides))`, but each combination of groups is put on its schema once. Values
        # are checked against it as they are set.
        values = [one for one in parsed if _sets_a_value(one)]
        own = [one for one in values if str(one.key_or_group).partition(".")[0] not in SWEEP_OPTIONS]
        groups = tuple(one for one in parsed if one not in values)
        words, rest = _words(groups), _words([one for one in parsed if one not in own])
        if rest not in self._slots:
            of_sweep = self._composed(rest)
            refuse_unknown_fields(of_sweep)
            self._slots[rest] = _slots(of_sweep)
        if words not in self._trials:
            self._trials[words] = on_schema(self._base(groups))
        trial = copy.deepcopy(self._trials[words])
        for one in own:
            OmegaConf.update(trial, one.key_or_group, one.value(), merge=True)
        return _resolved(typed_on_schema(with_stated(trial, _words(own))), self._slots[rest])

    def sweep(self, overrides: Sequence[str]) -> tuple[Sweep, Pruner]:
        """The settings of the sweep that a cell states. Raises ConfigError in one line."""
        return typed_sweep(self._composed(overrides))

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        with _explained():
            given = choices(overrides)
            parsed = [self._parse(override) for override in given]
            if any(_depends_on_its_place(one) for one in parsed):
                return with_stated(self._load(given), given)
            values = [one for one in parsed if _sets_a_value(one)]
            config = copy.deepcopy(self._base(tuple(one for one in parsed if not _sets_a_value(one))))
        for one in values:
            with _explained(str(one.input_line)):
                OmegaConf.update(config, one.key_or_group, one.value(), merge=True, force_add=one.is_force_add())
        return with_stated(config, _words(values))

    def _base(self, groups: tuple[Override, ...]) -> DictConfig:
        words = _words(groups)
        if words not in self._bases:
            own = {str(one.key_or_group): str(one.input_line) for one in groups if _is_an_option(one, groups)}
            experiment = any(one.key_or_group == "experiment" for one in groups)  # it may need what it stands beside
            plain = self._ours and not experiment
            self._bases[words] = self._combined(words, own) if plain else self._load(list(words))
        return self._bases[words]

    def _combined(self, words: tuple[str, ...], own: dict[str, str]) -> DictConfig:
        # An option of ours fills its own group and nothing else, whatever it stands beside: where each of them has been
        # composed in some combination, Hydra need not compose theirs.
        options = frozenset((group, own.get(group)) for group in OPTIONS)
        known = self._known.setdefault(tuple(word for word in words if word not in own.values()), {})
        if not options <= known.keys():
            composed = self._load(list(words))
            known.update(dict.fromkeys(options - known.keys(), (composed, options)))
            return composed
        nearest, present = max(known.values(), key=lambda one: len(one[1] & options))
        composed = copy.deepcopy(nearest)
        for group, word in options - present:
            composed[group] = copy.deepcopy(known[group, word][0][group])
        return composed


def _is_an_option(override: Override, groups: Sequence[Override]) -> bool:
    key = override.key_or_group
    alone = sum(one.key_or_group == key for one in groups) == 1
    plain = override.package is None and not (override.is_add() or override.is_delete())
    return key in OPTIONS and alone and plain and isinstance(override.value(), str)


def _sets_a_value(override: Override) -> bool:
    # As opposed to choosing a group's option, which Hydra composes before any value is set.
    if override.package is not None or override.is_sweep_override() or override.is_hydra_override():
        return False
    return not _is_group(override) or isinstance(override.value(), dict)


def _words(overrides: Sequence[Override]) -> tuple[str, ...]:
    return tuple(str(one.input_line) for one in overrides)


def _depends_on_its_place(override: Override) -> bool:
    # What + adds must be missing so far and what ~ deletes must be there: that takes all overrides, in their order.
    return (override.is_add() or override.is_delete()) and _sets_a_value(override)


def _is_group(override: Override) -> bool:
    key = str(override.key_or_group)
    return "/" in key or (paths.conf_dir() / key).is_dir()


@contextmanager
def _explained(override: str = "") -> Iterator[None]:
    # Hydra refuses lora=3 and lora=null with a ValueError.
    try:
        yield
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(explain(error, override)) from error
    except OSError as error:  # an option of 5,000 letters is no file's name
        raise as_ours(error) or error from error


def _load(overrides: list[str], config_dir: Path | None, config_name: str = "config") -> DictConfig:
    register()
    first, second = paths.conf_dir(), config_dir
    if config_dir is not None and (config_dir / f"{config_name}.yaml").is_file():
        first, second = config_dir, first  # Hydra looks for the primary config in the first place only
    more = [] if second is None else [f"hydra.searchpath=['file://{second}']"]
    with _hydra(first):
        return hydra_compose(config_name, overrides=[*more, *overrides])


@contextmanager
def _hydra(place: Path) -> Iterator[ConfigLoader]:
    """Hydra over the options in `place`. A caller that has initialised Hydra for itself finds it as it was."""
    own = Singleton._instances.pop(GlobalHydra, None)
    try:
        with initialize_config_dir(str(place), version_base=VERSION_BASE):
            yield GlobalHydra.instance().config_loader()
    finally:
        if own is not None:
            Singleton._instances[GlobalHydra] = own
