"""Which part of a task's data is scored, from its YAML alone: a test split must not choose among trials."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from danube_sweep.benchmark.find_tasks import check_names, harness_folder, is_test, names_in
from danube_sweep.benchmark.pinned_tasks import named_tasks
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import ConfigError

BENCHMARK = "benchmark/"
"""What the metrics of trainer.benchmark begin with."""


def check_benchmark(sweep: Sweep, config: Config) -> None:
    """The tasks of a trial, and those that rank its sweep.

    Raises ConfigError for a name that is no task, for a metric of a task that is scored on its test split, and for such
    a task in a sweep that leaves the winner's test scores out, unless the trials leave them out too.
    """
    if not config.trainer.benchmark:
        return
    folder = tasks_dir(config)
    check_names(named_tasks(config.trainer.benchmark), folder)
    check_overlap(named_tasks(config.trainer.benchmark), folder)
    unscored = tasks_on_test(config) if config.trainer.benchmark_test and not sweep.score_test else []
    if unscored:
        raise ConfigError(
            f"trainer.benchmark={unscored[0]}: it is scored on its test split, so for the winner alone, and "
            "sweep.score_test=false leaves that out; take the task out, or give sweep.score_test=true or "
            "trainer.benchmark_test=false"
        )
    for metric, _ in objectives(sweep):
        task = metric.removeprefix(BENCHMARK).partition("/")[0]
        if metric.startswith(BENCHMARK) and "test" in scored_parts(task, folder):
            raise ConfigError(
                f"sweep.metric={metric}: {task} is scored on its test split, which must not choose among trials; "
                "use a task with a validation split only, or a validation metric"
            )


def tasks_of_trial(config: Config) -> list[str]:
    """The tasks of trainer.benchmark that a trial scores itself: without trainer.benchmark_test no test split."""
    left_out = () if config.trainer.benchmark_test else tasks_on_test(config)
    return [name for name in named_tasks(config.trainer.benchmark) if name not in left_out]


def tasks_on_test(config: Config) -> list[str]:
    """The tasks of trainer.benchmark that are scored on a test split, a part of them at least."""
    folder = tasks_dir(config)
    return [name for name in named_tasks(config.trainer.benchmark) if "test" in scored_parts(name, folder)]


def tasks_dir(config: Config) -> Path | None:
    """The folder of a trial's own tasks."""
    named = config.trainer.benchmark_dir
    return None if named is None else Path(named).expanduser().absolute()


def scored_parts(name: str, folder: Path | None) -> set[str]:
    """`test` or `validation` for each task that a name stands for, as the harness chooses them.

    A member that no file defines, or that a class of its own loads, counts as scored on its test split.
    """
    return {"test" if one is None or _on_test(one) else "validation" for one in descriptions(name, folder)}


def _on_test(described: dict[str, Any]) -> bool:
    # Some tasks name a test split as what validates.
    named = str(described.get("validation_split") or "")
    return bool(described.get("test_split") or described.get("class")) or is_test(named)


def check_overlap(names: Sequence[str], folder: Path | None) -> None:
    """Raises ConfigError for two names that stand for the same task: only one of its scores would be kept."""
    owner: dict[str, str] = {}
    for name in names if len(names) > 1 else ():
        for described in descriptions(name, folder):
            task = name if described is None else str(described.get("task"))
            if (other := owner.setdefault(task, name)) != name:
                raise ConfigError(f"benchmark tasks: {other} and {name} both stand for {task}; give one of them")


def descriptions(name: str, folder: Path | None) -> list[dict[str, Any] | None]:
    """The YAML of each task that a name stands for, a group's members included; None for one that no file defines."""
    own = {} if folder is None else names_in(folder)
    found: list[dict[str, Any] | None] = []
    waiting, seen = [name], {name}
    while waiting:
        one = waiting.pop()
        files = own.get(one) or names_in(harness_folder()).get(one, [])
        found += [] if files else [None]
        for described in map(described_in, files):
            members = _members(described, one)
            found += [] if members else [described]
            waiting += [member for member in members if member not in seen]
            seen.update(members)
    return found


def _members(described: dict[str, Any], name: str) -> list[str]:
    # A file of a tag names itself; one of a group lists its tasks.
    if described.get("group") != name:
        return []
    listed = described.get("task")
    members = listed if isinstance(listed, list) else [listed]
    return [str(one.get("task") if isinstance(one, dict) else one) for one in members]


def described_in(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A task's YAML with what it includes; functions are not imported. Raises ConfigError for a file that is none.

    `above`: the files that include it.
    """
    if file.resolve() in above:
        raise ConfigError(f"{file} includes itself; take it out of `include`")
    try:
        found = _read(file, file.stat().st_mtime_ns)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML file of a task: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} is no YAML file of a task; it needs a line `task: NAME`")
    included, merged = found.get("include") or [], dict[str, Any]()
    for one in included if isinstance(included, list) else [included]:
        merged |= described_in(file.parent / str(one), (*above, file.resolve()))
    return {**merged, **{key: value for key, value in found.items() if key != "include"}}


@cache
def _read(file: Path, _changed_ns: int) -> Any:
    # Groups such as mmlu have dozens of files, and each trial of a sweep asks for them several times.
    return yaml.load(file.read_bytes(), Loader=_Loader)


class Function(str):
    """The name of a Python function beside a task's YAML."""


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as its name."""


_Loader.add_constructor("!function", lambda loader, node: Function(node.value))
