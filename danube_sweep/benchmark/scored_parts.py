"""Which part of a task's data is scored, from its YAML alone: a test split must not choose among trials."""

from pathlib import Path
from typing import Any

import yaml

from danube_sweep.benchmark.find_tasks import check_names, harness_folder, names_in
from danube_sweep.benchmark.pinned_tasks import named_tasks
from danube_sweep.config.schema import Config, Sweep
from danube_sweep.config.validate.check_sweep import objectives
from danube_sweep.errors import ConfigError

BENCHMARK = "benchmark/"
"""What the metrics of trainer.benchmark begin with."""


def check_benchmark(sweep: Sweep, config: Config) -> None:
    """The tasks of a trial, and those that rank its sweep.

    Raises ConfigError for a name that is no task, and for a metric of a task that is scored on its test split.
    """
    if not config.trainer.benchmark:
        return
    folder = tasks_dir(config)
    check_names(named_tasks(config.trainer.benchmark), folder)
    for metric, _ in objectives(sweep):
        task = metric.removeprefix(BENCHMARK).partition("/")[0]
        if metric.startswith(BENCHMARK) and "test" in scored_parts(task, folder):
            raise ConfigError(
                f"sweep.metric={metric}: {task} is scored on its test split, which must not choose among trials; "
                "use a task with a validation split only, or a validation metric"
            )


def tasks_dir(config: Config) -> Path | None:
    """The folder of a trial's own tasks."""
    named = config.trainer.benchmark_dir
    return None if named is None else Path(named).expanduser().absolute()


def scored_parts(name: str, folder: Path | None) -> set[str]:
    """`test` or `validation` for each task that a name stands for, as the harness chooses them.

    A member that no file defines counts as scored on its test split.
    """
    own = {} if folder is None else names_in(folder)
    found: set[str] = set()
    waiting, seen = [name], {name}
    while waiting:
        one = waiting.pop()
        files = own.get(one) or names_in(harness_folder()).get(one, [])
        if not files:
            found.add("test")
        for described in map(described_in, files):
            members = _members(described, one)
            if not members:
                found.add("test" if described.get("test_split") else "validation")
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


def described_in(file: Path) -> dict[str, Any]:
    """A task's YAML with what it includes; functions are not imported. Raises ConfigError for a file that is none."""
    try:
        found = yaml.load(file.read_bytes(), Loader=_Loader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML file of a task: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} is no YAML file of a task; it needs a line `task: NAME`")
    included = found.pop("include", [])
    merged: dict[str, Any] = {}
    for one in [included] if isinstance(included, str) else included:
        merged |= described_in(file.parent / one)
    return {**merged, **found}


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name` as its name."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))
