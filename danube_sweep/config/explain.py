"""What is wrong with a config, in one line: Hydra's and OmegaConf's errors, and the options that there are."""

import dataclasses
import difflib
import re

from hydra.errors import OverrideParseException
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
from danube_sweep.config.options import OPTIONS, SWEEP_OPTIONS


def options_of(group: str) -> dict[str, type]:
    """Option -> dataclass of a config group, those of installed packages included."""
    return SWEEP_OPTIONS[group] if group in SWEEP_OPTIONS else offered_options.options(group)


def explain(error: BaseException) -> str:
    """A Hydra or OmegaConf error in one line: field, value, way out."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    first = " ".join(str(getattr(cause, "msg", None) or cause).split("full_key")[0].split())
    match cause:
        case ConfigKeyError() | ConfigAttributeError():
            return _unknown_field(key, cause)
        case MissingMandatoryValue():
            return f"{key} is required: give {key}=…"
        case ValidationError() if "is not a ListConfig" in first:
            return f"{key} takes a list: write {key}=[…]"
        case ValidationError():
            return f"{key}: {first[0].lower()}{first[1:]}"
        case InterpolationResolutionError() | InterpolationKeyError():
            return f"{key}: {first}"
        case OmegaConfBaseException():
            return f"{key}: {first}" if key else first
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: not an override; write GROUP=OPTION or FIELD=VALUE, "
            f"and quote a value with signs in it: {_quoted(error.override)}"
        )
    if match := re.match(r"Ambiguous value for argument '([^']+)'", str(error)):
        return f"{match[1]} names several values: give -m to sweep over them, or a list as FIELD=[a,b]"
    return _unknown_option(str(error)) or " ".join(str(error).split())


def _quoted(override: str) -> str:
    field, _, value = override.partition("=")
    if re.fullmatch(r"\[.*\]", value) is None:
        return f"""'{field}="{value or "…"}"'"""
    entries = [entry if re.fullmatch(r"[\w.+-]*", entry) else f'"{entry}"' for entry in value[1:-1].split(",")]
    return f"'{field}=[{','.join(entries)}]'"


def _unknown_field(key: str, error: OmegaConfBaseException) -> str:
    schema = error.object_type
    names = [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []
    parent, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {parent + '.' if parent else ''}{close[0]}? " if close else ""
    if not names and parent in (*OPTIONS, *SWEEP_OPTIONS):
        others = ", ".join(f"{parent}={option}" for option in options_of(parent))
        return f"{key}: no such field; the chosen {parent} has none; there are {others}"
    return f"{key}: no such field; {hint}it has {', '.join(names) or 'no fields'}"


def _unknown_option(message: str) -> str | None:
    # Hydra: "Could not find 'head/foo'\n\nAvailable options in 'head':\n\tcausal\n\tlm…"
    match = re.search(
        r"Could not find '(?:([\w/]+)/)?([^'/]+)'(.*?Available options in '[^']*':\s*(.*))?", message, re.S
    )
    if match is None or match[1] is None:
        return None
    group, value, options = match[1], match[2], (match[4] or "").split("Config search path")[0].split()
    if (why := offered_options.why_not(group, value)) is not None:
        return why
    close = difflib.get_close_matches(value, options, n=1)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    return f"{group}={value}: no such option; {hint}there are {', '.join(options)}"
