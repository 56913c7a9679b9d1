"""The `parameters` of a W&B sweep file: constants as overrides, and a distribution for every key that varies."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from danube_sweep.config.options import SWEEP_OPTIONS
from danube_sweep.errors import ConfigError, GuardError
from danube_sweep.sweeping.propose.search_space import (
    Beta,
    Choice,
    Distribution,
    Normal,
    Number,
    Rounded,
    Weighted,
)
from danube_sweep.sweeping.wandb_file.sweep_file_text import check_keys, finite_number, mapping, quoted

_BOUNDS, _MOMENTS, _SHAPE = ("min", "max"), ("mu", "sigma"), ("a", "b")

TAKES: dict[str, Sequence[str]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": (*_BOUNDS, "q"),
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": (*_BOUNDS, "q"),
    "q_log_uniform_values": (*_BOUNDS, "q"),
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": _MOMENTS,
    "log_normal": _MOMENTS,
    "q_normal": (*_MOMENTS, "q"),
    "q_log_normal": (*_MOMENTS, "q"),
    "beta": _SHAPE,
    "q_beta": (*_SHAPE, "q"),
}
"""Every distribution, with its keys."""

_DEFAULTS = {"mu": 0.0, "sigma": 1.0, "q": 1, "a": 1, "b": 1}
GRID = ("constant", "categorical", "int_uniform", "q_uniform")
"""The distributions that W&B allows in a grid."""

_KEYS = (
    "value", "values", "probabilities", "min", "max", "distribution", "mu", "sigma", "a", "b", "q", "parameters",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BARE = re.compile(r"(?!(?i:null|true|false|inf|nan)$)[A-Za-z_/][A-Za-z0-9_./-]*")


def read_parameters(node: Any, method: str) -> tuple[dict[str, str], dict[str, Distribution]]:
    """The constants (key: text of the override) and the distributions, both in W&B's order: sorted, level by level.

    Raises ConfigError for parameters that W&B does not allow or that cannot be drawn here.
    """
    constants: dict[str, str] = {}
    space: dict[str, Distribution] = {}
    for key, leaf in _leaves("", node):
        if key in constants or key in space:
            raise ConfigError(f"parameters: {key} is given twice; keep one")
        kind = _kind(key, leaf)
        if kind == "constant":
            constants[key] = override_text(key, leaf["value"])
        elif method != "grid":
            space[key] = _distribution(key, kind, leaf)
        elif kind in GRID:
            space[key] = _grid_axis(key, kind, leaf)
        else:
            raise ConfigError(f"{key}: a grid cannot hold {kind}, which is drawn; give values, or method: random")
    return constants, space


def _leaves(prefix: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in sorted(mapping(f"{prefix}parameters", node).items(), key=lambda item: str(item[0])):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{prefix}{quoted(name)}: no name of a parameter; write GROUP or GROUP.FIELD, in quotes")
        key = f"{prefix}{name}"
        if key.split(".")[0] in (*SWEEP_OPTIONS, "hydra"):
            raise ConfigError(f"{key}: a setting of the sweep cannot vary from trial to trial; give it when starting")
        if not isinstance(child, dict) or not child:
            raise ConfigError(f"{key}={quoted(child)}: a parameter is a mapping; write {name}: {{value: …}}")
        if "parameters" in child:
            check_keys(key, child, ["parameters"])
            yield from _leaves(f"{key}.", child["parameters"])
        else:
            yield key, child


def _kind(key: str, leaf: Mapping[str, Any]) -> str:
    """The distribution that is named or, as W&B does it, follows from the keys; with those keys checked."""
    check_keys(key, leaf, _KEYS)
    kind = leaf["distribution"] if "distribution" in leaf else _implied(key, leaf)
    if not isinstance(kind, str) or kind not in TAKES:
        raise ConfigError(f"{key}.distribution={quoted(kind)}: {_no_distribution(str(kind))}")
    for name in leaf:
        if name not in ("distribution", *TAKES[kind]):
            raise ConfigError(
                f"{key}.{name}={quoted(leaf[name])}: {kind} does not take it, only {', '.join(TAKES[kind])}"
            )
    for name in TAKES[kind]:
        if name not in leaf and name not in _DEFAULTS:
            raise ConfigError(f"{key}.{name} is missing: {kind} takes {', '.join(TAKES[kind])}")
    return kind


def _no_distribution(kind: str) -> str:
    close = difflib.get_close_matches(kind, TAKES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no such distribution; {hint}there are {', '.join(TAKES)}"


def _implied(key: str, leaf: Mapping[str, Any]) -> str:
    if "value" in leaf:
        return "constant"
    if "values" in leaf:
        return "categorical_w_probabilities" if "probabilities" in leaf else "categorical"
    if "min" not in leaf or "max" not in leaf:
        raise ConfigError(f"{key}={quoted(dict(leaf))}: give value, values, min and max, or a distribution")
    whole = all(isinstance(finite_number(f"{key}.{name}", leaf[name]), int) for name in _BOUNDS)
    return "int_uniform" if whole else "uniform"


def _distribution(key: str, kind: str, leaf: Mapping[str, Any]) -> Distribution:
    match kind:
        case "categorical":
            return Choice(_texts(key, leaf["values"]))
        case "categorical_w_probabilities":
            return _weighted(key, leaf)
        case "int_uniform":
            low, high = _bounds(key, leaf)
            if not (isinstance(low, int) and isinstance(high, int)):
                raise ConfigError(f"{key}: min={low} and max={high} of int_uniform must be whole; or use uniform")
            return Number(low, high, whole=True)
        case "normal" | "log_normal" | "q_normal" | "q_log_normal":
            return _normal(key, kind, leaf)
        case "beta" | "q_beta":
            a, b = (float(_positive(key, name, leaf)) for name in _SHAPE)
            return Beta(a, b, _positive(key, "q", leaf) if kind == "q_beta" else None)
    return _number(key, kind, leaf)


def _texts(key: str, values: Any) -> list[str]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key}.values={quoted(values)}: must be a list with at least one value, like [8, 16]")
    return [override_text(f"{key}.values", value) for value in values]


def _weighted(key: str, leaf: Mapping[str, Any]) -> Weighted:
    values, given = _texts(key, leaf["values"]), leaf["probabilities"]
    label = f"{key}.probabilities={quoted(given)}"
    if not isinstance(given, list) or len(given) != len(values):
        raise ConfigError(f"{label}: must be a list with a number for each of the {len(values)} values")
    probabilities = [float(finite_number(f"{key}.probabilities", one)) for one in given]
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1, rel_tol=1e-5):  # W&B's tolerance
        raise ConfigError(f"{label}: must be 0 or more each and 1 in sum, got {sum(probabilities):g}")
    return Weighted(values, probabilities)


def _normal(key: str, kind: str, leaf: Mapping[str, Any]) -> Normal:
    mean, deviation = finite_number(f"{key}.mu", leaf.get("mu", _DEFAULTS["mu"])), _positive(key, "sigma", leaf)
    step = _positive(key, "q", leaf) if kind.startswith("q_") else None
    return Normal(float(mean), float(deviation), "log" in kind, step)


def _number(key: str, kind: str, leaf: Mapping[str, Any]) -> Number | Rounded:
    low, high = _bounds(key, leaf)
    match kind.removeprefix("q_"):
        case "log_uniform":
            low, high = _exp(key, low), _exp(key, high)
        case "inv_log_uniform":  # log(1/x) is uniform from min to max
            low, high = _exp(key, -high), _exp(key, -low)
        case "log_uniform_values" | "inv_log_uniform_values" if low <= 0:
            raise ConfigError(f"{key}.min={low}: {kind} needs bounds above 0")
        case "uniform" | "log_uniform_values" | "inv_log_uniform_values":
            pass
        case _:
            raise GuardError(f"{key}: {kind} is taken and not drawn")
    log = "log" in kind
    if kind.startswith("q_"):
        return Rounded(float(low), float(high), _step(key, low, high, leaf), log)
    return Number(float(low), float(high), log)


def _grid_axis(key: str, kind: str, leaf: Mapping[str, Any]) -> Distribution:
    match kind:
        case "q_uniform":
            return _grid_steps(key, leaf)
        case "categorical":
            texts = _texts(key, leaf["values"])
            same = [_texts(key, [_as_wandb_compares(value)])[0] for value in leaf["values"]]
            return Choice(list(dict(zip(same, texts, strict=True)).values()))
    return _distribution(key, kind, leaf)


def _as_wandb_compares(value: Any) -> Any:
    """1.0 and 1 are one value of W&B's grid, at the place of the first and spelled like the last."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _grid_steps(key: str, leaf: Mapping[str, Any]) -> Number:
    """W&B's grid over q_uniform: from min in steps of q, max left out."""
    low, high = _bounds(key, leaf)
    step = _step(key, low, high, leaf)
    last = low + (math.ceil((high - low) / step) - 1) * step
    if float(low).is_integer() and float(step).is_integer():
        return Number(int(low), int(last), step=int(step), whole=True)
    return Number(float(low), float(last), step=float(step))


def _step(key: str, low: float, high: float, leaf: Mapping[str, Any]) -> int | float:
    step = _positive(key, "q", leaf)
    if max(abs(low), abs(high)) / step > 2**53:
        raise ConfigError(f"{key}.q={step}: too small for min={quoted(leaf['min'])} and max={quoted(leaf['max'])}")
    return step


def _bounds(key: str, leaf: Mapping[str, Any]) -> tuple[int | float, int | float]:
    low, high = (finite_number(f"{key}.{name}", leaf[name]) for name in _BOUNDS)
    if low >= high:
        raise ConfigError(f"{key}: min={low} must be below max={high}; for one value write value: {low}")
    if not math.isfinite(float(high) - float(low)):
        raise ConfigError(f"{key}: from min={low} to max={high} is more than a number can hold; narrow it")
    return low, high


def _exp(key: str, exponent: float) -> float:
    try:
        value = math.exp(exponent)
    except OverflowError:
        value = math.inf
    if not 0 < value < math.inf:
        raise ConfigError(
            f"{key}: its bounds are exponents of e, and e^{exponent} is no number; for bounds that are values "
            "use log_uniform_values"
        )
    return value


def _positive(key: str, name: str, leaf: Mapping[str, Any]) -> int | float:
    given = finite_number(f"{key}.{name}", leaf.get(name, _DEFAULTS[name]))
    if given <= 0:
        raise ConfigError(f"{key}.{name}={given}: must be above 0")
    return given


def override_text(key: str, value: Any) -> str:
    """A YAML value as the text after the = of a Hydra override, which reads it back as the same single value.

    Raises ConfigError for a value that an override cannot state.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return value if _BARE.fullmatch(value) else str(QuotedString(value, Quote.single).with_quotes())
        case list():
            return "[" + ",".join(override_text(key, item) for item in value) + "]"
        case dict() if all(isinstance(name, str) and _BARE.fullmatch(name) for name in value):
            return "{" + ",".join(f"{name}:{override_text(key, item)}" for name, item in value.items()) + "}"
        case dict():
            raise ConfigError(f"{key}={quoted(value)}: its keys must be plain words")
    raise ConfigError(f"{key}={quoted(value)}: {type(value).__name__} is no value of an override; put it in quotes")
