"""A Weights & Biases sweep file, read so that it runs without a server and every key keeps W&B's meaning.

docs/wandb.md has the table of W&B's keys and their equivalents here.
"""

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from danube_sweep.config.from_environment import ALLOWED, check_received, is_allowed
from danube_sweep.errors import ConfigError
from danube_sweep.sweeping.propose.search_space import Choice, Distribution, Number
from danube_sweep.sweeping.wandb_file.sweep_file_text import (
    check_keys,
    finite_number,
    mapping,
    quoted,
    read_mapping,
    whole,
    words,
)
from danube_sweep.sweeping.wandb_file.wandb_parameters import override_text, read_parameters

KEYS = (
    "program", "name", "description", "project", "entity",
    "method", "metric", "parameters", "early_terminate", "run_cap", "command",
)  # fmt: skip
METRIC = ("name", "goal")
EARLY_TERMINATE = ("type", "min_iter", "max_iter", "s", "eta", "strict")
SAMPLERS = {"grid": "grid", "random": "random", "bayes": "tpe"}
SIGNS = {"${args_no_hyphens}": "", "${args_append_hydra}": "+", "${args_override_hydra}": "++"}
"""The macros that make Hydra overrides of the parameters, with the sign that each puts before a key."""

NO_OVERRIDES = ("${args}", "${args_no_equals}", "${args_json}", "${args_json_file}", "${args_no_boolean_flags}")
_COMMAND = "command: ['${env}', danube-sweep, '${args_no_hyphens}']"
_ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@dataclass(frozen=True)
class SweepFile:
    """A sweep file as overrides of Hydra."""

    name: str | None
    description: str | None
    method: str
    """grid, random or bayes."""
    fixed: list[str]
    """Overrides of every trial: those written into `command`, the constants, W&B's project and entity."""
    space: dict[str, Distribution]
    """The distribution of each varied override, by key. For a grid: its axes, the last one fastest."""
    settings: list[str]
    """Overrides of the sweep's own settings: sweep.* and pruner."""
    run_cap: int | None = None
    """The most trials; for a grid, the first ones of the product."""

    def cells(self, limit: int) -> list[list[str]]:
        """The grid, each cell the overrides of a trial, in W&B's order: keys sorted, the last one fastest.

        Raises ConfigError before anything is expanded if there are more than `limit`.
        """
        axes = [(key, *_points(distribution)) for key, distribution in self.space.items()]
        count: int = math.prod(size for _, size, _ in axes)
        count = count if self.run_cap is None else min(count, self.run_cap)
        if count > limit:
            raise ConfigError(
                f"the grid has {count} trials, more than the {limit} allowed; give fewer values, a run_cap, "
                "method: random, or raise sweep.max_trials"
            )
        return [_cell(axes, index) for index in range(count)]


def _cell(axes: Sequence[tuple[str, int, Callable[[int], str]]], index: int) -> list[str]:
    overrides = []
    for key, size, text in reversed(axes):
        index, digit = divmod(index, size)
        overrides.append(f"{key}={text(digit)}")
    return overrides[::-1]


def _points(distribution: Distribution) -> tuple[int, Callable[[int], str]]:
    """How many values an axis of a grid has, and the text of the i-th."""
    match distribution:
        case Choice(values=values):
            return len(values), values.__getitem__
        case Number(low=low, high=high, whole=True, step=step):
            first, by = int(low), int(step or 1)
            return (int(high) - first) // by + 1, lambda i: str(first + i * by)
        case Number(low=low, high=high, step=float() | int() as step):
            delta = (low + step) - low  # numpy.arange, which W&B uses, rounds like this
            return round((high - low) / step) + 1, lambda i: repr(low + i * delta)
    raise TypeError(f"no grid over {type(distribution).__name__}")


def read_sweep_file(path: Path) -> SweepFile:
    """Reads a W&B sweep file. Raises ConfigError in one line: file, key, value, way out."""
    try:
        return _sweep_file(read_mapping(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _sweep_file(node: Mapping[str, Any]) -> SweepFile:
    check_keys("", node, KEYS)
    check_received("a sweep file", {key: value for key, value in node.items() if key != "command"})
    method = node.get("method")
    if not isinstance(method, str) or method not in SAMPLERS:
        raise ConfigError(f"method={quoted(method)}: must be one of {', '.join(SAMPLERS)}")
    literals, sign = read_command(node.get("command"), node.get("program"))
    constants, space = read_parameters(node.get("parameters"), method)
    for key in (*constants, *space):
        if key in literals:
            raise ConfigError(f"{key} stands in command and in parameters; keep one")
    if method != "grid" and not space:
        raise ConfigError(
            f"parameters: none of them varies, and {method} draws without end; give values, or min and max"
        )
    run_cap = whole("run_cap", node["run_cap"], least=1) if "run_cap" in node else None
    return SweepFile(
        name=_words(node, "name"),
        description=_words(node, "description"),
        method=method,
        fixed=[
            *literals.values(),
            *(f"{sign}{key}={text}" for key, text in constants.items()),
            *_tracking(node, literals),
        ],
        space={f"{sign}{key}": distribution for key, distribution in space.items()},
        settings=[
            *_metric(node, method),
            f"sweep.sampler={SAMPLERS[method]}",
            f"sweep.trials={'null' if run_cap is None else run_cap}",
            *_early_terminate(node),
        ],
        run_cap=run_cap,
    )


def _words(node: Mapping[str, Any], key: str) -> str | None:
    return None if node.get(key) is None else words(key, node[key])


def _tracking(node: Mapping[str, Any], literals: Mapping[str, str]) -> list[str]:
    if literals.get("tracking", "").endswith("=none"):
        return []
    named = {f"tracking.{key}": _words(node, key) for key in ("project", "entity")}
    return [f"{key}={override_text(key, name)}" for key, name in named.items() if name and key not in literals]


def _metric(node: Mapping[str, Any], method: str) -> list[str]:
    if "metric" not in node:
        if method == "bayes" or "early_terminate" in node:
            needs = "method: bayes" if method == "bayes" else "early_terminate"
            raise ConfigError(f"metric is missing: {needs} needs it; write metric: {{name: validation/log_loss}}")
        return []
    metric = mapping("metric", node["metric"])
    why = {"target": "a sweep here does not end at a target; leave it out, and stop with run_cap or sweep.deadline_h"}
    check_keys("metric", metric, METRIC, why)
    if "name" not in metric:
        raise ConfigError("metric.name is missing: give one that is logged, like validation/log_loss")
    goal = metric.get("goal", "minimize")  # as W&B takes it
    if goal not in ("minimize", "maximize"):
        raise ConfigError(f"metric.goal={quoted(goal)}: must be minimize or maximize")
    name = override_text("metric.name", words("metric.name", metric["name"]))
    return [f"sweep.metric={name}", f"sweep.goal={goal}"]


def _early_terminate(node: Mapping[str, Any]) -> list[str]:
    if "early_terminate" not in node:
        return []
    stop = mapping("early_terminate", node["early_terminate"])
    check_keys("early_terminate", stop, EARLY_TERMINATE)
    if stop.get("type") != "hyperband":
        raise ConfigError(f"early_terminate.type={quoted(stop.get('type'))}: must be hyperband")
    strict = stop.get("strict", True)  # as W&B's `sweeps` 0.3.0 fills it in
    if not isinstance(strict, bool):
        raise ConfigError(f"early_terminate.strict={quoted(strict)}: must be true or false")
    eta = finite_number("early_terminate.eta", stop.get("eta", 3))
    if eta <= 1:
        raise ConfigError(f"early_terminate.eta={eta:g}: must be above 1")
    rungs = {**_bands(stop, eta), "eta": eta, "strict": str(strict).lower()}
    return ["pruner=wandb_hyperband", *(f"pruner.{key}={value}" for key, value in rungs.items())]


def _bands(stop: Mapping[str, Any], eta: float) -> dict[str, int]:
    if ("min_iter" in stop) == ("max_iter" in stop):
        raise ConfigError("early_terminate: give either min_iter, or max_iter and s")
    if "min_iter" in stop:
        return {"min_iter": whole("early_terminate.min_iter", stop["min_iter"], least=1)}
    if "s" not in stop:
        raise ConfigError("early_terminate.s is missing: max_iter needs it, the number of times a trial may be stopped")
    found = {key: whole(f"early_terminate.{key}", stop[key], least=1) for key in ("max_iter", "s")}
    if found["max_iter"] / eta < 1:
        most = found["max_iter"]
        raise ConfigError(
            f"early_terminate.max_iter={most}: below eta={eta:g} no trial would ever be stopped; raise it"
        )
    return found


def read_command(command: Any, program: Any) -> tuple[dict[str, str], str]:
    """The overrides written into `command`, by key, and the sign that its macro puts before the parameters.

    Raises ConfigError if it does not start danube-sweep, or passes the parameters as anything but overrides.
    """
    if command is None:
        raise ConfigError(
            f"command is missing, and W&B's own passes --key=value, which is no override; write {_COMMAND}"
        )
    literals: dict[str, str] = {}
    signs = []
    for word in _arguments(_split(command), program):
        if word in SIGNS:
            signs.append(SIGNS[word])
        elif word in NO_OVERRIDES:
            raise ConfigError(f"command: {word} makes no Hydra overrides; use ${{args_no_hyphens}}")
        else:
            key = _key(word)
            if key in literals:
                raise ConfigError(f"command: {key} is given twice; keep one")
            literals[key] = word
    if len(signs) != 1:
        raise ConfigError(f"command must hold one of {', '.join(SIGNS)}, got {len(signs)}; write {_COMMAND}")
    return literals, signs[0]


def _split(command: Any) -> list[str]:
    try:
        parts = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise ConfigError(f"command={quoted(command)}: {error}; write a list: {_COMMAND}") from error
    if not isinstance(parts, list) or not all(isinstance(part, str | int | float) for part in parts):
        raise ConfigError(f"command={quoted(command)}: must be a list of words; write {_COMMAND}")
    return [_ENVIRONMENT.sub(_environment, str(part)) for part in parts]


def _environment(match: re.Match[str]) -> str:
    if not is_allowed(match[1]):
        raise ConfigError(
            f"command: {match[0]}: a sweep file may read {', '.join(ALLOWED)} only; write the value out, or give the "
            "override when starting the sweep"
        )
    if match[1] not in os.environ:
        raise ConfigError(f"command: {match[0]}: the environment has no {match[1]}; set it, or write its value")
    return os.environ[match[1]]


def _arguments(parts: list[str], program: Any) -> list[str]:
    """The words after the program, which must be ours."""
    if "${program}" in parts:
        if program is None:
            raise ConfigError("program is missing: command names ${program}; write program: danube-sweep")
        parts = [words("program", program) if part == "${program}" else part for part in parts]
    if parts and parts[0] in ("${env}", "/usr/bin/env"):
        parts = parts[1:]
    match parts:
        case [started, *rest] if Path(started).name == "danube-sweep":
            return rest
        case [python, "-m", "danube_sweep", *rest] if python == "${interpreter}" or "python" in Path(python).name:
            return rest
    raise ConfigError(f"command={quoted(' '.join(parts))}: it must start danube-sweep; write {_COMMAND}")


def _key(word: str) -> str:
    """The key of an override that is written into the command."""
    if word in ("-m", "--multirun"):
        raise ConfigError(f"command: {word} would start a sweep in every trial; put what varies under parameters")
    if word.startswith("-") or re.fullmatch(r"\$\{[^}]*\}", word):
        known = ", ".join(("${env}", "${interpreter}", "${program}", "${envvar:NAME}", *SIGNS))
        raise ConfigError(f"command: {word} has no meaning without W&B's agent; besides {known} it may hold overrides")
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"command: {quoted(word)} is no override; write GROUP=OPTION or FIELD=VALUE") from error
    if override.is_sweep_override():
        raise ConfigError(f"command: {word} has several values; put them under parameters")
    check_received("command", word)
    key = str(override.key_or_group)
    if key.partition("/")[0].partition(".")[0] == "hydra":
        raise ConfigError(f"command: {word} belongs to Hydra, not to a trial; give it when starting the sweep")
    return key
