"""The `parameters` of a W&B sweep file: constants as overrides, and a distribution for every key that varies."""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from danube_sweep.config.options import SWEEP_OPTIONS
from danube_sweep.errors import ConfigError, GuardError
from danube_sweep.sweeping.propose.search_space import Choice, Distribution, Normal, Number
from danube_sweep.sweeping.wandb_file.sweep_file_text import check_keys, finite_number, mapping, quoted

_BOUNDS, _MOMENTS = ("min", "max"), ("mu", "sigma")

TAKES: dict[str, Sequence[str]] = {
    "constant": ("value",),
    "categorical": ("values",),
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
}
"""Every distribution that is drawn here, with its keys; mu, sigma and q have defaults."""

_NO_BETA = "the beta distribution is not drawn here; use uniform, normal or values"
_EQUAL = "values are drawn with equal probability here; leave probabilities out, or repeat a value to weigh it"
REFUSED = {"beta": _NO_BETA, "q_beta": _NO_BETA, "categorical_w_probabilities": _EQUAL}
GRID = ("constant", "categorical", "int_uniform", "q_uniform")
"""The distributions that W&B allows in a grid."""

_KEYS = ("value", "values", "min", "max", "distribution", "mu", "sigma", "q", "parameters")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BARE = re.compile(r"(?!(?i:null|true|false|inf|nan)$)[A-Za-z_/][A-Za-z0-9_./-]*")


def read_parameters(node: Any, method: str) -> tuple[dict[str, str], dict[str, Distribution]]:
    """The constants (key: text of the override) and the distributions, both in W&B's order: sorted, level by level.

    Raises ConfigError for what W&B does not allow or what cannot be drawn here.
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
            space[key] = _grid_steps(key, leaf) if kind == "q_uniform" else _distribution(key, kind, leaf)
        else:
            raise ConfigError(f"{key}: a grid cannot hold {kind}, which is continuous; give values, or method: random")
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
    check_keys(key, leaf, _KEYS, {"probabilities": _EQUAL, "a": _NO_BETA, "b": _NO_BETA})
    kind = leaf["distribution"] if "distribution" in leaf else _implied(key, leaf)
    if not isinstance(kind, str) or kind not in TAKES:
        raise ConfigError(f"{key}.distribution={quoted(kind)}: {_no_distribution(str(kind))}")
    for name in leaf:
        if name not in ("distribution", *TAKES[kind]):
            raise ConfigError(
                f"{key}.{name}={quoted(leaf[name])}: {kind} does not take it, only {', '.join(TAKES[kind])}"
            )
    for name in TAKES[kind]:
        if name not in leaf and name not in ("mu", "sigma", "q"):
            raise ConfigError(f"{key}.{name} is missing: {kind} takes {', '.join(TAKES[kind])}")
    return kind


def _no_distribution(kind: str) -> str:
    close = difflib.get_close_matches(kind, TAKES, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return REFUSED.get(kind) or f"no such distribution; {hint}there are {', '.join(TAKES)}"


def _implied(key: str, leaf: Mapping[str, Any]) -> str:
    if "value" in leaf:
        return "constant"
    if "values" in leaf:
        return "categorical"
    if "min" not in leaf or "max" not in leaf:
        raise ConfigError(f"{key}={quoted(dict(leaf))}: give value, values, min and max, or a distribution")
    low, high = (finite_number(f"{key}.{name}", leaf[name]) for name in _BOUNDS)
    if type(low) is not type(high):
        raise ConfigError(
            f"{key}: min={quoted(leaf['min'])} and max={quoted(leaf['max'])} must both be whole (drawn as whole "
            "numbers) or both have a point; or name the distribution"
        )
    return "int_uniform" if isinstance(low, int) else "uniform"


def _distribution(key: str, kind: str, leaf: Mapping[str, Any]) -> Distribution:
    match kind:
        case "categorical":
            return _choice(key, leaf["values"])
        case "int_uniform":
            low, high = _bounds(key, leaf)
            if not (isinstance(low, int) and isinstance(high, int)):
                raise ConfigError(f"{key}: min={low} and max={high} of int_uniform must be whole; or use uniform")
            return Number(low, high, whole=True)
        case "normal" | "log_normal" | "q_normal" | "q_log_normal":
            return _normal(key, kind, leaf)
    return _number(key, kind, leaf)


def _choice(key: str, values: Any) -> Choice:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key}.values={quoted(values)}: must be a list with at least one value, like [8, 16]")
    return Choice([override_text(f"{key}.values", value) for value in values])


def _normal(key: str, kind: str, leaf: Mapping[str, Any]) -> Normal:
    mean, deviation = finite_number(f"{key}.mu", leaf.get("mu", 0.0)), _positive(f"{key}.sigma", leaf.get("sigma", 1.0))
    step = _positive(f"{key}.q", leaf.get("q", 1)) if kind.startswith("q_") else None
    return Normal(float(mean), float(deviation), "log" in kind, step)


def _number(key: str, kind: str, leaf: Mapping[str, Any]) -> Number:
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
    return _quantised(key, low, high, log, leaf) if kind.startswith("q_") else Number(float(low), float(high), log)


def _quantised(key: str, low: float, high: float, log: bool, leaf: Mapping[str, Any]) -> Number:
    """W&B draws and then rounds to multiples of q: the bounds round likewise."""
    step = _step(key, high - low, leaf)
    first, last = (float(Decimal(str(step)) * round(Decimal(bound) / Decimal(str(step)))) for bound in (low, high))
    if log and first <= 0:
        raise ConfigError(f"{key}: min={quoted(leaf['min'])} rounds to 0 at q={step}; raise min, or give a smaller q")
    if not float(step).is_integer():
        return Number(first, last, log, float(step))
    return Number(int(first), int(last), log, None if step == 1 else int(step), whole=True)


def _grid_steps(key: str, leaf: Mapping[str, Any]) -> Number:
    """W&B's grid over q_uniform: from min in steps of q, max left out."""
    low, high = _bounds(key, leaf)
    step = _step(key, high - low, leaf)
    last = low + (math.ceil((high - low) / step) - 1) * step
    if float(low).is_integer() and float(step).is_integer():
        return Number(int(low), int(last), step=int(step), whole=True)
    return Number(float(low), float(last), step=float(step))


def _step(key: str, span: float, leaf: Mapping[str, Any]) -> int | float:
    step = _positive(f"{key}.q", leaf.get("q", 1))
    if span / step > 2**53:
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


def _positive(key: str, value: Any) -> int | float:
    given = finite_number(key, value)
    if given <= 0:
        raise ConfigError(f"{key}={given}: must be above 0")
    return given


def override_text(key: str, value: Any) -> str:
    """A YAML value as what stands behind the = of a Hydra override, which reads it back as the same one value.

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
