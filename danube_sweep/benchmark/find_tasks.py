"""Names in, the harness's tasks out, their data included.

The harness indexes its 14,000 files in 10 seconds. Here only the folders that define a name are read as YAML.
"""

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from danube_sweep.errors import ConfigError, DanubeSweepError, DataError

_DEFINES = re.compile(r"^[\"']?(?:task|group)[\"']?:[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*(?:#.*)?$", re.M)
_TAGS = re.compile(r"^[\"']?tag[\"']?:[ \t]*(?:[\"']?([\w.+-]+)[\"']?[ \t]*$|((?:\n[ \t]*-[ \t]*[\w.+-]+)+))", re.M)
_EVERY_NAME = re.compile(r"(?:^|\n)[ \t]*-[ \t]*([\w.+-]+)")


@dataclass(frozen=True)
class FoundTask:
    """What a name stands for: the harness's `load` of it. A group has several tasks."""

    name: str
    loaded: Any

    @property
    def tasks(self) -> dict[str, Any]:
        """The harness's tasks by name."""
        return dict(self.loaded["tasks"])

    @property
    def split(self) -> str:
        """The part that is scored, as the harness chooses it: the test split where there is one."""
        on_test = any(task.has_test_docs() or is_test(_validates(task)) for task in self.tasks.values())
        return "test" if on_test else "validation"


def is_test(split: str) -> bool:
    """Whether a split is a test split by its name, whatever a task calls it."""
    return split.lower().startswith("test")


def _validates(task: Any) -> str:
    return str(getattr(getattr(task, "config", None), "validation_split", None) or "")


def harness_folder() -> Path:
    """The folder of the harness's own tasks. Raises ConfigError without the package."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("benchmark needs the package lm_eval: pip install 'danube_sweep[benchmark]'")
    return Path(found.submodule_search_locations[0]) / "tasks"


def check_tasks_dir(folder: Path | None) -> None:
    """Raises ConfigError for a folder that is missing or has no task in it."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(f"--tasks-dir {folder}: no such folder; give one with a YAML file for each task")
    if not names_in(folder):
        raise ConfigError(f"--tasks-dir {folder}: no task in it; a task is a YAML file with a line `task: NAME`")


@cache
def names_in(folder: Path) -> dict[str, list[Path]]:
    """Name -> the files that define it or belong to it, of every task, group and tag below a folder."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8", errors="replace")
        names = [match[1] for match in _DEFINES.finditer(text)]
        for single, listed in _TAGS.findall(text):
            names += [single] if single else _EVERY_NAME.findall(listed)
        for name in names:
            found.setdefault(name, []).append(file)
    return found


def check_names(names: Sequence[str], tasks_dir: Path | None) -> None:
    """Raises ConfigError for a name that neither the harness nor `tasks_dir` knows; loads nothing."""
    own = {} if tasks_dir is None else names_in(tasks_dir)
    for name in names:
        if name in own or name in names_in(harness_folder()):
            continue
        known = [*own, *names_in(harness_folder())]
        close = get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else "danube-sweep benchmark --list WORD searches the names"
        raise ConfigError(f"tasks={name}: no such task; {hint}")


def find_task(name: str, tasks_dir: Path | None) -> FoundTask:
    """Loads a task with its data. A name in `tasks_dir` goes before one of the harness.

    Raises ConfigError for an unknown name and for a task that runs code a model has written, DataError for data that
    are missing or cannot be read.
    """
    check_names([name], tasks_dir)
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        try:
            manager = TaskManager(include_path=_places(name, tasks_dir), include_defaults=False)
            loaded = _load(manager, name)
        except KeyError:  # a group of tasks from elsewhere
            manager = TaskManager(include_path=[tasks_dir] if tasks_dir else None)
            loaded = _load(manager, name)
    except DanubeSweepError:
        raise
    except Exception as error:  # whatever a task's own YAML, templates and functions raise
        raise _unusable(name, error, tasks_dir) from error
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise ConfigError(f"tasks={name}: it runs code that the model writes, which this command does not do")
    return FoundTask(name, loaded)


def _load(manager: Any, name: str) -> Any:
    """The tasks from local files or the cache; the hub is asked only for what is missing there."""
    import datasets
    from huggingface_hub import constants

    datasets.disable_progress_bars()
    forbidden = constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE
    try:
        with _offline():
            return manager.load([name])
    except (OSError, ValueError):  # of datasets: not in the cache
        if forbidden:
            raise
        return manager.load([name])


@contextmanager
def _offline() -> Iterator[None]:
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _places(name: str, tasks_dir: Path | None) -> list[Path]:
    """The folders that define a name; a later one goes before an earlier one."""
    if tasks_dir is not None and name in names_in(tasks_dir):
        return [tasks_dir]
    root = harness_folder()
    places = sorted({root / file.relative_to(root).parts[0] for file in names_in(root)[name]})
    return places if tasks_dir is None else [*places, tasks_dir]


def _unusable(name: str, error: Exception, tasks_dir: Path | None) -> DanubeSweepError:
    said = " ".join(str(error).split())[:300]
    if isinstance(error, ConnectionError):
        command = fetch_command(name, tasks_dir)
        fetch = f"fetch it where there is a network: {command}; or " if command else ""
        return DataError(
            f"tasks={name}: its data set is not in the cache and the hub cannot be reached; {fetch}give --tasks-dir"
        )
    if isinstance(error, FileNotFoundError):
        return DataError(f"tasks={name}: its data are missing ({said}); check the paths in the task's YAML file")
    return DataError(
        f"tasks={name}: it cannot be loaded ({type(error).__name__}: {said}); check its YAML file and data"
    )


def fetch_command(name: str, tasks_dir: Path | None = None) -> str | None:
    """The command that brings a task's data into the cache of Hugging Face; None if the task names no data set."""
    sources = sorted(_sources(name, tasks_dir))
    if not sources:
        return None
    calls = "; ".join(f"load_dataset({', '.join(map(repr, source))})" for source in sources)
    return f'python -c "from datasets import load_dataset; {calls}"'


def _sources(name: str, tasks_dir: Path | None) -> set[tuple[str, ...]]:
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    manager = TaskManager(include_path=_places(name, tasks_dir), include_defaults=False)
    found: set[tuple[str, ...]] = set()
    waiting, seen = [name], set()
    while waiting:
        one = waiting.pop()
        entry = manager.task_index.get(one)
        if entry is None or one in seen:
            continue
        seen.add(one)
        described = {} if entry.yaml_path is None else load_yaml(entry.yaml_path, resolve_func=False)
        if "dataset_path" in described:
            found.add(tuple(str(part) for key in ("dataset_path", "dataset_name") if (part := described.get(key))))
        members = described.get("task") if isinstance(described.get("task"), list) else []
        waiting += [member if isinstance(member, str) else str(member.get("task")) for member in members or []]
        waiting += [*entry.tags] if entry.yaml_path is None else []
    return found
