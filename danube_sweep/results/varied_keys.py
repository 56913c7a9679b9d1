"""The keys that vary between the trials of a sweep, in its user's words; trials that differ by seed and fold only."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from danube_sweep.results.trial_results import StoredTrial

_NO_PART = {"name", "seed", "device", "tracking", "storage", "hydra", "sweep", "pruner"}
"""First words of keys that do not make a trial another one, or only by its seed."""
_NO_MATTER = {"trainer.eval_batch", "trainer.log_every", "trainer.benchmark_test", "trainer.score_test", "data.fold"}
_FIRST_WORD = re.compile(r"[^./@]*")


def _counts(key: str) -> bool:
    first = _FIRST_WORD.match(key)
    return key not in _NO_MATTER and (first is None or first[0] not in _NO_PART)


def by_row(trials: Sequence[StoredTrial]) -> list[list[StoredTrial]]:
    """Trials that differ only in their seed and fold, together, in the order given."""
    rows: dict[str, list[StoredTrial]] = {}
    for trial in trials:
        rows.setdefault(_identity(trial), []).append(trial)
    return list(rows.values())


def _identity(trial: StoredTrial) -> str:
    meaning = trial.config or trial.overrides or {"folder": trial.name}
    meaning = {key: value for key, value in meaning.items() if _counts(key)}
    return json.dumps([bool(trial.config), meaning], sort_keys=True, default=str)


def varied_keys(trials: Sequence[StoredTrial]) -> list[str]:
    """The keys, or groups like `model`, whose values differ between trials; without seed and fold.

    They are taken from overrides. In a folder without overrides the configs are compared. Keys that follow from another
    choice are then left out: a model's shape and learning rate, the fields of another kind of head.
    """
    if any(trial.overrides is not None for trial in trials):
        keys = dict.fromkeys(key for trial in trials for key in trial.overrides or {})
        return [key for key in keys if _counts(key) and _is_varied(trials, key)]
    return _differing([trial.config for trial in trials if trial.config])


def value_of(trial: StoredTrial, key: str) -> Any:
    """A trial's value for a varied key: its override, or else the value in its config; None without either."""
    overrides = trial.overrides or {}
    return overrides[key] if key in overrides else _configured(trial.config, key)


def _is_varied(trials: Sequence[StoredTrial], key: str) -> bool:
    asked = _distinct(trial.overrides[key] for trial in trials if trial.overrides and key in trial.overrides)
    others = [trial for trial in trials if trial.config and key not in (trial.overrides or {})]
    if asked > 1 or not others:
        return asked > 1
    # Some ask for it and some leave it at its default.
    configs = [trial.config for trial in trials if trial.config]
    known = any(name == key or name.startswith(f"{key}.") for name in configs[0])
    return not known or _distinct(_configured(config, key) for config in configs) > 1


def _configured(config: dict[str, Any], key: str) -> Any:
    return config[key] if key in config else _label(config, key)


def _label(config: dict[str, Any], group: str) -> Any:
    """The choice of a group in a word or two; None for a group that is no choice."""
    match group:
        case "model":
            path = config.get("model.path")
            shape = (config.get("model.shape.hidden_size"), config.get("model.shape.num_hidden_layers"))
            return str(path).rstrip("/").rpartition("/")[2] if path else "x".join(map(str, shape))
        case "precision":
            return f"{config.get('precision.storage')}{'_dq' if config.get('precision.double_quant') else ''}"
        case _:
            return config.get(f"{group}.kind")


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config if _counts(key))
    differing = [key for key in keys if _distinct(config.get(key) for config in configs) > 1]
    groups: dict[str, list[str]] = {}
    for key in differing:
        groups.setdefault(key.partition(".")[0], []).append(key)
    shown = [key for group, members in groups.items() for key in _told(configs, group, members)]
    if "lora.rank" in keys and _follows(configs, "lora.alpha", [config.get("lora.rank") for config in configs]):
        shown = [key for key in shown if key != "lora.alpha"]
    default = all(config.get("optimizer.lr") == config.get("model.lr") for config in configs)
    return [key for key in shown if key != "optimizer.lr" or not default or "model" not in groups]


def _told(configs: list[dict[str, Any]], group: str, members: list[str]) -> list[str]:
    """The members, or the group itself with the members that do not follow from its choice."""
    labels = [_label(config, group) for config in configs]
    choices = {"model.path", "precision.storage", f"{group}.kind"}
    if _distinct(labels) == 1 or (len(members) == 1 and members[0] not in choices):
        return members
    return [group, *(key for key in members if key not in choices and not _follows(configs, key, labels))]


def _follows(configs: list[dict[str, Any]], key: str, labels: list[Any]) -> bool:
    pairs = [(label, config.get(key)) for label, config in zip(labels, configs, strict=True)]
    return _distinct(pairs) == _distinct(labels)


def _distinct(values: Iterable[Any]) -> int:
    # As text with its type: lists are values too, and 1 equals 1.0 but not True.
    return len({json.dumps(float(one) if type(one) is int else one, default=str) for one in values})
