"""The comparison: data, splits, metrics, versions, device and git state of a sweep's trials."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.options import OPTIONS
from danube_sweep.config.schema import path_fields
from danube_sweep.data.description import restored
from danube_sweep.errors import CheckpointError, DataError
from danube_sweep.report.row_predictions import Seen
from danube_sweep.results.trial_results import StoredTrial
from danube_sweep.storage.files import read_json

_MOST_BYTES: Final = 2**30
"""A larger data file is not read again for its digest."""

MEANING: Final = {
    "log_loss": "mean over the validation rows of -ln of the probability given to the label, in nats",
    "accuracy": "share of the validation rows whose most likely class is the label",
    "macro_f1": "F1 of each class, averaged over the classes",
    "micro_f1": "F1 over all classes and rows together",
    "ece": "expected calibration error: |confidence - accuracy| over 15 bins of the confidence (arXiv:1706.04599)",
    "auroc": "area under the ROC curve, each class against the rest, averaged",
    "qwk": "Cohen's kappa with quadratic weights",
    "mse": "mean squared error",
    "rmse": "square root of the mean squared error",
    "mae": "mean absolute error",
    "perplexity": "e to the power of the loss per token",
    "exact_match": "share of the rows with every class right",
    "entity_f1": "F1 over entities with exact span and type (CoNLL-2003)",
    "token_f5": "F5 over the words of entities",
}


@dataclass(frozen=True)
class Fact:
    """A line of the comparison: name, value, and whether the trials differ in it though they should not."""

    name: str
    value: str
    differs: bool = False


def compared(trials: Sequence[StoredTrial], seen: Sequence[Seen | None], metrics: Iterable[str]) -> list[Fact]:
    """The facts of a sweep; `seen` are the predictions of its rows, `metrics` those that are shown."""
    found = [(trial.fold, environment) for trial in trials if (environment := environment_of(trial))]
    environments = [environment for _, environment in found]
    read = _same_in_a_fold("what was read", [(fold, _read(environment)) for fold, environment in found])
    facts = [*_data(trials), read, *_parts(trials, seen)]
    facts += [Fact(f"metric {name}", MEANING[name]) for name in metrics if name in MEANING]
    facts += [
        *_versions(environments),
        _same("device", environments, lambda one: _spoken(one.get("device"))),
        _same("machine", environments, lambda one: _spoken(one.get("machine"))),
        _same("git", environments, _git),
    ]
    return [fact for fact in facts if fact.value]


def _data(trials: Sequence[StoredTrial]) -> list[Fact]:
    configs = [trial.config for trial in trials if trial.config]
    files = dict.fromkeys(str(config[key]) for config in configs for key in _paths(config) if config.get(key))
    facts = [_same("data", configs, lambda one: str(one.get("data.kind") or ""), must=False)]
    facts += [Fact("data file", _digested(path)) for path in files]
    return [*facts, _same("split", configs, _split), _seeds(trials)]


def _split(config: Mapping[str, Any]) -> str:
    """The split that was used: fields that have no effect beside others are left out."""
    folds = config.get("data.folds")
    said, drawn = [f"{folds} folds"] if folds else [], bool(folds)
    for part in ("validation", "test"):
        own = next((found for name in ("path", "split") if (found := config.get(f"data.{part}_{name}"))), None)
        share = config.get(f"data.{part}_fraction")
        if own is not None:
            said.append(f"{part} rows from {own}")
        elif share and not (folds and part == "validation"):
            said.append(f"{part}_fraction {share}")
            drawn = True
    if config.get("data.train_on_validation"):
        said.append("validation rows trained on")
    how = {name: config.get(f"data.{name}") for name in ("split_seed", "stratified", "group_column", "group_by")}
    return ", ".join(filter(None, [*said, _spoken(how) if drawn else ""]))


def _read(environment: Mapping[str, Any]) -> str:
    """Rows, classes and cuts, as the run itself recorded them when it read its data."""
    description = restored(environment.get("data"))
    if description is None:
        return ""
    rows = " and ".join(f"{part.rows:,} {name}" for name, part in description.parts.items())
    cut = sum(part.cut_rows for part in description.parts.values())
    classes = f"{len(description.classes)} classes" if description.classes else ""
    lost = f"{cut:,} cut at" if cut else "none cut at"
    return ", ".join(filter(None, [f"{rows} rows", classes, f"{lost} data.max_length={description.max_length}"]))


def _paths(config: Mapping[str, Any]) -> list[str]:
    schema = OPTIONS["data"].get(str(config.get("data.kind")))
    return [] if schema is None else [f"data.{name}" for name in sorted(path_fields(schema))]


def _digested(path: str) -> str:
    file = Path(path).expanduser()
    with suppress(DataError, OSError):
        if file.is_file() and file.stat().st_size <= _MOST_BYTES:
            return f"{path}, as it is now: {file.stat().st_size:,} bytes, SHA-256 {file_digest(file)[:12]}"
    return path


def _seeds(trials: Sequence[StoredTrial]) -> Fact:
    seeds = sorted({trial.seed for trial in trials if trial.seed is not None})
    folds = sorted({trial.fold for trial in trials if trial.fold is not None})
    return Fact("seeds", ", ".join(map(str, seeds)) + (f"; folds {', '.join(map(str, folds))}" if folds else ""))


def _parts(trials: Sequence[StoredTrial], seen: Sequence[Seen | None]) -> list[Fact]:
    rows = [
        (trial.fold, ", ".join(f"{name} {count:,}" for name, count in found.items()))
        for trial in trials
        if isinstance(found := trial.result.get("rows"), dict)
    ]
    prints = Counter(one.fingerprint for one in seen if one is not None)
    alike = (
        "the same validation rows and labels in every row of the ranking"
        if len(prints) == 1
        else "the rows of the ranking have different validation rows"
    )
    said = ", ".join(f"{name} in {count}" if len(prints) > 1 else name for name, count in prints.most_common(3))
    facts = [_same_in_a_fold("examples", rows)]
    return [*facts, Fact("validation rows", f"{alike} (fingerprint {said})", len(prints) > 1)] if prints else facts


def environment_of(trial: StoredTrial) -> dict[str, Any]:
    """The contents of the trial's environment.json; empty if it is missing or damaged."""
    if not trial.folder.environment.is_file():
        return {}
    with suppress(CheckpointError):
        return read_json(trial.folder.environment)
    return {}


def _same(name: str, found: Sequence[Any], say: Callable[[Any], str], *, must: bool = True) -> Fact:
    counted = Counter(say(one) for one in found)
    counted.pop("", None)
    if len(counted) < 2:
        return Fact(name, next(iter(counted), ""))
    return Fact(name, "; or ".join(f"{text} ({count} trials)" for text, count in counted.most_common(4)), must)


def _same_in_a_fold(name: str, found: Sequence[tuple[int | None, str]]) -> Fact:
    """The fact of trials by fold: folds need not be equally large, so only trials of one fold must agree."""
    found = [(fold, text) for fold, text in found if text]
    folds = {fold for fold, _ in found}
    return _same(name, [text for _, text in found], str, must=len(set(found)) > len(folds))


def _spoken(table: Any) -> str:
    if not isinstance(table, Mapping):
        return ""
    return ", ".join(f"{key} {_said(value)}" for key, value in table.items() if value not in (None, ""))


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _versions(environments: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """Those that all trials share on one line, and a line for each that differs."""
    tables = [found for one in environments if isinstance(found := one.get("versions"), Mapping)]
    facts = [_version(tables, name) for name in dict.fromkeys(str(name) for table in tables for name in table)]
    shared = ", ".join(f"{fact.name} {fact.value}" for fact in facts if not fact.differs)
    return [
        Fact("versions", shared),
        *(Fact(f"version of {fact.name}", fact.value, differs=True) for fact in facts if fact.differs),
    ]


def _version(tables: Sequence[Mapping[str, Any]], name: str) -> Fact:
    return _same(name, tables, lambda one: str(one.get(name, "")))


def _git(environment: Mapping[str, Any]) -> str:
    git = environment.get("git")
    if not isinstance(git, Mapping):
        return "no git here" if environment else ""
    return f"{str(git.get('commit'))[:12]}{' with uncommitted changes' if git.get('dirty') else ''}"
