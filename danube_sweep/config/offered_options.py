"""Heads and optimizers that other packages offer by entry point. docs/extending.md shows such a package.

An entry point names a `HeadExtension` or an `OptimizerExtension`: a schema, and where its builder is. What it names
imports no torch, so that --help and plan stay fast; the builder is imported when a trial is built.
"""

import re
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import NoneType, UnionType
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import Config, Head, Optimizer
from danube_sweep.errors import ConfigError, DanubeSweepError

ENTRY_POINTS = {"head": "danube_sweep.heads", "optimizer": "danube_sweep.optimizers"}
"""Config group -> the entry points that add options to it."""

USUAL_STATES = 2.0
"""Numbers that an optimizer is taken to keep for each that it trains, as AdamW does, where it does not say."""

Shape = tuple[int, ...]
Built = TypeVar("Built")

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BUILD = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_OURS = ("kind", "check")
"""Names that a field cannot have: config.yaml's key for the option, and a schema's own check."""


@dataclass(frozen=True)
class HeadExtension:
    """The object that an entry point of `danube_sweep.heads` names."""

    schema: type[Head]
    """A dataclass that extends Head or ClassifierHead; a method `check` may raise ValueError("FIELD must be …")."""
    build: str
    """`package.module:name`, called as name(config, hidden_size=…, classes=[…], tokenizer=…); makes a head.Head.

    Later versions may give more: take the rest as **rest.
    """
    shapes: Callable[[Any, int, int], Sequence[Shape]] | None = None
    """(config, hidden size, number of classes) -> the shapes of its weights, for plan; None makes plan estimate."""


@dataclass(frozen=True)
class OptimizerExtension:
    """The object that an entry point of `danube_sweep.optimizers` names."""

    schema: type[Optimizer]
    """A dataclass that extends Optimizer or Adam; a method `check` may raise ValueError("FIELD must be …")."""
    build: str
    """`package.module:name`, called as name(config, groups=[…]); makes a torch.optim.Optimizer over these groups.

    A group has params, lr and weight_decay. Later versions may give more: take the rest as **rest.
    """
    states: float | None = None
    """Numbers that it keeps for each number that it trains, for plan; None makes plan estimate."""


Extension = HeadExtension | OptimizerExtension
_KINDS: dict[str, tuple[Any, type]] = {"head": (HeadExtension, Head), "optimizer": (OptimizerExtension, Optimizer)}


@dataclass(frozen=True)
class Offer:
    """An option that an installed package offers."""

    option: str
    """As it is chosen: head=prototypes."""
    package: str
    version: str
    extension: Extension

    @property
    def named(self) -> str:
        """The start of a message about it."""
        return f"{self.option}: {self.package}"


@dataclass(frozen=True)
class Offers:
    """The options that installed packages offer for a group, by name; for unusable ones, the line with the reason."""

    usable: dict[str, Offer]
    refused: dict[str, str]


@cache
def offers(group: str) -> Offers:
    """The options of installed packages for a config group, looked up once. A broken package raises nothing here."""
    found = Offers({}, {})
    if group not in ENTRY_POINTS:
        return found
    named: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=ENTRY_POINTS[group]):
        named.setdefault(entry.name, []).append(entry)
    for name, entries in sorted(named.items()):
        try:
            found.usable[name] = _offer(group, entries, found.usable.values())
        except ConfigError as error:
            found.refused[name] = str(error)
    return found


def options(group: str) -> dict[str, type]:
    """Option -> dataclass of a config group: ours, and then those of installed packages."""
    return {**OPTIONS[group], **{name: offer.extension.schema for name, offer in offers(group).usable.items()}}


def offer_of(config: object) -> Offer | None:
    """The offer whose schema a config is of; None for one of ours."""
    every = (offer for group in ENTRY_POINTS for offer in offers(group).usable.values())
    return next((offer for offer in every if offer.extension.schema is type(config)), None)


def why_not(group: str, name: str) -> str | None:
    """Why an option that a package offers cannot be used; None if none offers it, or if it can."""
    return offers(group).refused.get(name)


def packages() -> dict[str, str]:
    """The packages that offer something usable, with their versions."""
    return {offer.package: offer.version for group in ENTRY_POINTS for offer in offers(group).usable.values()}


# -------------------------------------------------------------------------------------------------------- looking up


def _offer(group: str, entries: list[EntryPoint], others: Iterable[Offer]) -> Offer:
    entry, option = entries[0], f"{group}={entries[0].name}"
    package = _package(entry)
    if len(entries) > 1:
        raise ConfigError(f"{option}: offered by {' and '.join(map(_package, entries))}; uninstall all but one")
    if entry.name in OPTIONS[group]:
        raise ConfigError(f"{option}: {package} offers it, but the name is taken by danube_sweep; it must take another")
    if _NAME.fullmatch(entry.name) is None:
        raise ConfigError(f"{option}: {package} offers it, but a name is made of a-z, 0-9 and _; it must take another")
    extension = _loaded(entry, option)
    problem = _problem(group, extension)
    if problem is None and any(other.extension.schema is extension.schema for other in others):
        problem = f"its schema {extension.schema.__name__} is that of another option too; give each its own"
    if problem is not None:
        raise ConfigError(f"{option}: {package} cannot be used: {problem}")
    return Offer(option, package, "" if entry.dist is None else entry.dist.version, extension)


def _package(entry: EntryPoint) -> str:
    return entry.module if entry.dist is None else entry.dist.name


def _loaded(entry: EntryPoint, option: str) -> Any:
    had_torch = "torch" in sys.modules
    try:
        extension = entry.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{option}: {_package(entry)} cannot be imported: {_said(error)}") from error
    if "torch" in sys.modules and not had_torch:
        raise ConfigError(
            f"{option}: {_package(entry)} cannot be used: importing {entry.module} loads torch, and with it every "
            "--help; import it in the module of the builder"
        )
    return extension


def _problem(group: str, extension: Any) -> str | None:
    kind, base = _KINDS[group]
    if not isinstance(extension, kind):
        return f"its entry point names a {type(extension).__name__}, not a {kind.__name__}"
    schema, build, told = extension.schema, extension.build, getattr(extension, "states", None)
    if not (isinstance(schema, type) and issubclass(schema, base) and "__dataclass_params__" in vars(schema)):
        named = getattr(schema, "__name__", schema)
        return f"its schema {named} is no dataclass that extends danube_sweep.schema.{base.__name__}"
    if issubclass(schema, tuple(OPTIONS[group].values())):
        return f"its schema {schema.__name__} extends an option; extend {base.__name__}"
    if not (isinstance(build, str) and _BUILD.fullmatch(build)):
        return f"its builder is {build!r}; write 'package.module:name'"
    if not (told is None or (isinstance(told, int | float) and told >= 0)):
        return f"its states are {told!r}; give a number from 0"
    return _problem_of_fields(schema, base)


def _problem_of_fields(schema: Any, base: type) -> str | None:
    base_fields = {field.name for field in fields(base)}
    if schema.__dataclass_params__.frozen:
        return f"its schema {schema.__name__} is frozen; leave out frozen=True"
    for field in fields(schema):
        if "help" not in field.metadata:
            return f"its field {field.name} has no help; declare it with danube_sweep.schema.setting"
        if field.name in _OURS or (field.name not in base_fields and hasattr(base, field.name)):
            return f"its field {field.name} has a name that is already taken; give it another name"
    try:
        OmegaConf.structured(schema)
        types = typing.get_type_hints(schema)
    except (OmegaConfBaseException, NameError, TypeError, ValueError) as error:
        return f"its schema {schema.__name__} is none that OmegaConf takes: {_said(error)}"
    wrong = next((field.name for field in fields(schema) if not _is_plain(types[field.name])), None)
    return None if wrong is None else f"its field {wrong} must be bool, int, float, str, an Enum, or a list of these"


def _is_plain(hint: Any) -> bool:
    if typing.get_origin(hint) in (typing.Union, UnionType, list):
        return all(_is_plain(inner) for inner in typing.get_args(hint))
    return hint in (bool, int, float, str, NoneType) or (isinstance(hint, type) and issubclass(hint, Enum))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


# ------------------------------------------------------------------------------------------------------------- using


def check_extension(config: Head | Optimizer) -> None:
    """The schema's own check, where a package offers one with it. Raises ConfigError, in one line."""
    offer = offer_of(config)
    if offer is None or not hasattr(config, "check"):
        return
    try:
        config.check()
    except ValueError as error:
        raise ConfigError(f"{offer.option.partition('=')[0]}.{' '.join(str(error).split())}") from error
    except Exception as error:
        raise ConfigError(f"{offer.named} cannot check it: {_said(error)}") from error


def build(config: Head | Optimizer, wanted: type[Built], **given: Any) -> Built:
    """The object that an extension's builder makes from its config.

    Raises ConfigError, naming the package, if it cannot or makes something that is not `wanted`; TypeError for a config
    that no package offers.
    """
    offer = offer_of(config)
    if offer is None:
        raise TypeError(f"no builder for {config}")
    module, _, name = offer.extension.build.partition(":")
    try:
        built = getattr(import_module(module), name)(config, **given)
    except DanubeSweepError:
        raise
    except Exception as error:
        raise ConfigError(f"{offer.named} cannot build it: {_said(error)}") from error
    if not isinstance(built, wanted):
        made = f"{offer.extension.build} returns a {type(built).__name__}, not a {wanted.__module__}.{wanted.__name__}"
        raise ConfigError(f"{offer.named} cannot be used: {made}")
    return built


def meaning(config: object) -> str:
    """The name of an option's class in a trial's hash, with the package that offers it."""
    offer = offer_of(config)
    return type(config).__name__ if offer is None else f"{offer.package}:{offer.option}"


def head_shapes(head: Head, hidden_size: int, classes: int) -> list[Shape] | None:
    """The shapes of an offered head's weights, or those of a linear layer if it does not say; None for one of ours.

    Raises ConfigError, naming the package, if it cannot say.
    """
    offer = offer_of(head)
    if offer is None:
        return None
    assert isinstance(offer.extension, HeadExtension)
    if offer.extension.shapes is None:
        return [(classes, hidden_size), (classes,)]
    try:
        return [tuple(map(int, shape)) for shape in offer.extension.shapes(head, hidden_size, classes)]
    except Exception as error:
        raise ConfigError(f"{offer.named} cannot say its shapes: {_said(error)}") from error


def states(optimizer: Optimizer) -> float | None:
    """Numbers that an offered optimizer keeps for each that it trains, USUAL_STATES if it doesn't say; None if ours."""
    offer = offer_of(optimizer)
    if offer is None:
        return None
    assert isinstance(offer.extension, OptimizerExtension)
    return USUAL_STATES if offer.extension.states is None else float(offer.extension.states)


def estimated(config: Config) -> list[str]:
    """The parts of a trial that the planner guesses, because the offering package does not state them."""
    found = []
    for part, guess in ((config.head, "a linear layer's weights"), (config.optimizer, "AdamW's states")):
        match offer_of(part):
            case Offer(option, extension=HeadExtension(shapes=None) | OptimizerExtension(states=None)):
                found.append(f"{option} does not state its memory, and is counted as {guess}")
    return found
