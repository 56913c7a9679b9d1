"""Config mistakes in one line: Hydra's and OmegaConf's errors, with the existing options."""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from danube_sweep.config import offered_options
from danube_sweep.config.data_hint import which_data
from danube_sweep.config.facts.named_models import how_to_choose
from danube_sweep.config.facts.other_names import FIELD_NAMES, OPTION_NAMES
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS
from danube_sweep.config.schema import Config

_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
_CONVERSION = re.compile(rf"Value '(.*)' of type '\w+' could not be converted to ({'|'.join(_TYPES)})", re.S)
PATHS = ("data.path", "data.validation_path", "data.test_path")


def options_of(group: str) -> dict[str, type]:
    """Option -> dataclass of a config group, those of installed packages included."""
    return SWEEP_OPTIONS[group] if group in SWEEP_OPTIONS else offered_options.options(group)


def explain(error: BaseException, override: str = "") -> str:
    """A Hydra or OmegaConf error in one line: field, value, way out; `override` is its cause, if known."""
    # Hydra names no cause for what it meets in a file. OmegaConf's own context is a text that is not filled in yet.
    behind = (error.__cause__, error.__context__ if isinstance(error, HydraException) else None)
    cause = next((one for one in behind if isinstance(one, OmegaConfBaseException)), error)
    key = str(getattr(cause, "full_key", "") or "")
    first = " ".join(str(getattr(cause, "msg", None) or cause).split("full_key")[0].split())
    match cause:
        case ConfigKeyError() | ConfigAttributeError():
            # Hydra names a missing group alone, and the whole override only in its advice to add it.
            typed = re.search(r"use \++([^\s=]+=.*)", str(error))
            return _unknown_key(key, cause, typed[1] if typed else override.lstrip("+"))
        case MissingMandatoryValue():
            return f"{key} is required: give {key}=…"
        case ValidationError() if "is not a ListConfig" in first:
            return f"{key} takes a list: write {key}=[…]"
        case ValidationError() if (match := _CONVERSION.match(first)) is not None:
            return f"{key} must be {_TYPES[match[2]]}, got {match[1]}"
        case ValidationError():
            return f"{key}: {first[0].lower()}{first[1:]}"
        case InterpolationResolutionError() | InterpolationKeyError():
            return f"{key}: {first}"
        case OmegaConfBaseException():
            return f"{key}: {first}" if key else first
    return _misread(error)


def _misread(error: BaseException) -> str:
    """Hydra's own errors: malformed overrides, several values for one field, unknown options."""
    if isinstance(error, OverrideParseException):
        word, _, value = error.override.partition("=")
        if (hint := in_our_words(word, value)) is not None:
            return f"{word}: no such field; {hint}"
        return (
            f"{error.override}: not an override; write GROUP=OPTION or FIELD=VALUE, "
            f"and quote a value that contains special characters: {_quoted(error.override)}"
        )
    if match := re.match(r"Ambiguous value for argument '(.+?)'\n", str(error)):
        field, _, value = match[1].partition("=")
        return (
            f"{match[1]} names several values: give -m to sweep over them, a list as {field}=[{value}], "
            f"or quote a value that contains a comma: {_quoted(match[1])}"
        )
    if match := re.match(r"Could not override '([^']+)'\.\s+No match in the defaults list", str(error)):
        return unknown_field(match[1], [*OPTIONS, *SWEEP_OPTIONS], match[1], None)
    if match := re.match(r"Could not append to config\. An item is already at '([^']+)'", str(error)):
        return f"+{match[1]}: the field exists already; leave out the +: {match[1]}=…"
    return _unknown_option(str(error)) or " ".join(str(error).split())


def _quoted(override: str) -> str:
    field, _, value = override.partition("=")
    if re.fullmatch(r"\[.*\]", value) is None:
        return f"""'{field}="{value or "…"}"'"""
    entries = [entry if re.fullmatch(r"[\w.+-]*", entry) else f'"{entry}"' for entry in value[1:-1].split(",")]
    return f"'{field}=[{','.join(entries)}]'"


def _unknown_key(key: str, error: OmegaConfBaseException, override: str) -> str:
    schema = error.object_type
    names = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []
    parent = key.rpartition(".")[0]
    word, _, value = override.partition("=")
    whole = word if word.startswith(key) else key
    if not names and parent in (*OPTIONS, *SWEEP_OPTIONS) and in_our_words(whole) is None:
        others = ", ".join(f"{parent}={option}" for option in options_of(parent))
        return f"{key}: no such field; the chosen {parent} has none; there are {others}"
    return unknown_field(key, names, whole, value or None)


def unknown_field(key: str, names: Sequence[str], whole: str, value: str | None) -> str:
    """The line about a key that is not among `names`: our name for it, or the nearest of them.

    `whole` is the key with everything after its first unknown word, `value` the given value.
    """
    if (ours := in_our_words(whole, value)) is not None:
        return f"{whole}: no such field; {ours}"
    if key in PATHS and not {"path", "validation_path", "validation_split"} & set(
        names
    ):  # generated data reads no file
        return f"{key}: no such field; {which_data(value if key == PATHS[0] else None)}"
    parent, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, names, n=1)
    if not close and (place := _elsewhere(whole)) is not None:
        return f"{whole}: no such field; write {place}={value or '…'}"
    hint = f"did you mean {parent + '.' if parent else ''}{close[0]}? " if close else ""
    return f"{whole}: no such field; {hint}it has {', '.join(names) or 'no fields'}"


def in_our_words(key: str, value: str | None = None) -> str | None:
    """The override for another tool's field; None if unknown. `value` is the given value."""
    key = key.lower().replace("-", "_")
    words = FIELD_NAMES.get(key) or FIELD_NAMES.get(key.rpartition(".")[2])
    if words is None:
        return None
    write = words.values.get((value or "").lower(), words.write).replace("{value}", value or "…")
    if not write:
        return words.note
    return f"write {write} ({words.note})" if words.note else f"write {write}"


def _elsewhere(key: str) -> str | None:
    """A field of ours under another group, where one group alone has it."""
    name = key.rpartition(".")[2]
    groups = {group for group in (*OPTIONS, *SWEEP_OPTIONS) for kind in options_of(group).values() if _has(kind, name)}
    at_top = name in {one.name for one in dataclasses.fields(Config)} - set(OPTIONS)
    places = [f"{group}.{name}" for group in sorted(groups)] + ([name] if at_top else [])
    return places[0] if len(places) == 1 and places[0] != key else None


def _has(kind: type, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(kind)}


def _unknown_option(message: str) -> str | None:
    # Hydra: "Could not find 'head/foo'\n\nAvailable options in 'head':\n\tcausal\n\tlm…"
    if (model := re.search(r"Could not find 'model/([^'\n]*/[^'\n]*)'", message)) is not None:
        return how_to_choose(model[1])
    match = re.search(
        r"Could not find '(?:([\w/]+)/)?([^'/]+)'(.*?Available options in '[^']*':\s*(.*))?", message, re.S
    )
    if match is None or match[1] is None:
        return None
    return unknown_option(match[1], match[2], (match[4] or "").split("Config search path")[0].split())


def unknown_option(group: str, value: str, options: Sequence[str]) -> str:
    """The line about an option that is not among `options`: our name for it, or the nearest of them."""
    if (why := offered_options.why_not(group, value)) is not None:
        return why
    ours = OPTION_NAMES.get(group, {}).get(value.lower())
    close = difflib.get_close_matches(value, options, n=1)
    hint = f"write {ours}; " if ours else f"did you mean {group}={close[0]}? " if close else ""
    if group == "model":
        hint += f"for another model write model=auto model.path={value}; "
    return f"{group}={value}: no such option; {hint}there are {', '.join(options)}"
