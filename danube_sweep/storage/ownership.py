"""Which folders are ours, and which names in them are.

A folder of a run or a sweep holds a marker; one of version 0.1 is known by its files and gets one. In a folder of ours
only the names below are written or removed, and never through a symbolic link. A folder with other content is refused.
"""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Final

from danube_sweep.decoding import Undecodable, json_of
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import abandoned, remove, write_json, writing
from danube_sweep.storage.leases import is_lease

MARKER: Final = ".danube_sweep"
_ABOUT = "danube-sweep writes, replaces and removes files of its own names in this folder, and no others"


class Kind(Enum):
    """The kinds of our folders."""

    run = "run"
    sweep = "sweep"
    checkpoints = "checkpoints"
    ensemble = "ensemble"
    benchmark = "benchmark"
    night = "night"
    prediction = "prediction"
    """The parts of an interrupted one."""


_HIDDEN = {MARKER, ".lock", ".claim", ".test.lock"}
_FILES = {
    Kind.run: {
        "adjusted.json",
        "paused.json",
        "attempts.jsonl",
        "checkpoints.json",
        "config.yaml",
        "decisions.json",
        "environment.json",
        "log.txt",
        "metrics.csv",
        "oof.parquet",
        "predictions.parquet",
        "refit.json",
        "result.json",
        "soup.json",
        "trial.json",
    },
    Kind.sweep: {
        "baselines.log",
        "confirm.json",
        "executor.json",
        "executor.log",
        "history.lock",
        "history.log",
        "leases.json",
        "oof.parquet",
        "ranking.csv",
        "ranking.md",
        "report.html",
        "sweep.json",
        "test.json",
    },
    Kind.checkpoints: set(),
    Kind.ensemble: {
        "decisions.json",
        "ensemble.json",
        "oof.parquet",
        "predictions.parquet",
        "refit.json",
        "report.html",
    },
    Kind.benchmark: {"benchmark.json"},
    Kind.night: {"commands.sh", "night.json", "report.html", "submission.csv"},
    Kind.prediction: {"parts.json"},
}
_FOLDERS = {
    Kind.run: {"adapter", "checkpoints", "model", "tensorboard", "wandb"},
    Kind.sweep: {"baselines", "tokenizers", "workers"},
    Kind.checkpoints: set(),
    Kind.ensemble: {"trials"},
    Kind.benchmark: {"scores"},
    Kind.night: {"ensemble", "refit", "sweep"},
    Kind.prediction: set(),
}
_NUMBERED = {
    Kind.run: re.compile(r"checkpoints-of-version-\d+(-\d+)?"),
    Kind.sweep: re.compile(r"p\d{3,}\.log"),
    Kind.checkpoints: re.compile(r"step-\d{8}"),
    Kind.ensemble: re.compile(r"(?!)"),
    Kind.benchmark: re.compile(r"\d{3,}"),
    Kind.night: re.compile(r"sweep-\d+"),
    Kind.prediction: re.compile(r"\d{3,}-\d{6,}\.safetensors|\.tmp\w{6}"),  # safetensors writes to .tmpXXXXXX first
}
_TRIAL = re.compile(r"\d{3,}_(.*_)?([0-9a-f]{8}|invalid)")
"""The name of a trial's folder in its sweep."""
_FROM_HYDRA = {"multirun.yaml"}
_WAY_OUT = {
    Kind.run: "give a new or empty folder by hydra.run.dir",
    Kind.sweep: "give a new or empty folder by hydra.sweep.dir",
    Kind.checkpoints: "give another storage.checkpoints",
    Kind.ensemble: "give a new or empty folder by -o",
    Kind.benchmark: "give a new or empty folder by -o",
    Kind.night: "give a new or empty folder by -o",
    Kind.prediction: "choose another place by -o",
}


def is_our_name(name: str, kind: Kind) -> bool:
    """Whether a name in a folder of this kind is one that we write."""
    return name in _HIDDEN | _FILES[kind] | _FOLDERS[kind] or bool(_NUMBERED[kind].fullmatch(name)) or is_lease(name)


def is_ours(folder: Path, kind: Kind) -> bool:
    """Whether the folder has our marker, or the files of a folder that had none yet."""
    return _kind_marked(folder) in (kind, None) if _marker(folder) else _RECOGNISED[kind](folder)


def check(folder: Path, kind: Kind) -> None:
    """Writes nothing. Raises CheckpointError unless the folder is ours, empty or missing, and none of our names a link.

    Hidden files, but for our own, do not count as content.
    """
    if not folder.is_dir():
        return
    found = os.listdir(folder)
    for name in sorted(found):
        if is_our_name(name, kind) and (folder / name).is_symlink():
            raise CheckpointError(f"{folder / name} is a symbolic link, which is not written through; {_instead(name)}")
    if _marker(folder):
        marked = _kind_marked(folder)
        if marked not in (kind, None):
            raise CheckpointError(f"{folder} is the folder of a {marked.value}; {_WAY_OUT[kind]}")
        return
    content = sorted(name for name in found if _is_content(folder / name))
    if content and not _RECOGNISED[kind](folder):
        named = ", ".join(content[:3]) + (f" and {len(content) - 3} more" if len(content) > 3 else "")
        raise CheckpointError(f"{folder} holds files that danube-sweep did not write ({named}); {_WAY_OUT[kind]}")


def take_over(folder: Path, kind: Kind) -> None:
    """Makes the folder if necessary, and marks it as ours. Raises CheckpointError, as `check` does, and DiskError."""
    with writing(folder, "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        check(folder, kind)
    if not _marker(folder):
        write_json(folder / MARKER, {"kind": kind.value, "about": _ABOUT})


def is_blank(folder: Path, kind: Kind) -> bool:
    """Whether the folder is empty, but for a marker, a lock and temporary files that a killed process of ours left."""
    return all(name in (MARKER, ".lock") or is_temporary(name, kind) for name in os.listdir(folder))


def is_temporary(name: str, kind: Kind) -> bool:
    """Whether a name is the temporary one of a file or folder that we write in a folder of this kind."""
    whole = abandoned(name)
    return whole is not None and is_our_name(whole, kind)


def give_back(folder: Path) -> None:
    """Removes the marker of a folder that holds nothing else."""
    with suppress(OSError):
        if os.listdir(folder) == [MARKER]:
            (folder / MARKER).unlink()


def remove_files(folder: Path, kind: Kind) -> None:
    """Removes our files and, if nothing else is in it, the folder; of a link nothing. Raises OSError."""
    for name in [] if folder.is_symlink() else os.listdir(folder):
        if (name in _HIDDEN | _FILES[kind] or is_lease(name)) and not (folder / name).is_dir():
            (folder / name).unlink()
    with suppress(OSError):  # a file that is not ours stays
        folder.rmdir()


def remove_temporaries(folder: Path, kind: Kind) -> None:
    """Removes the temporary files of our names that killed processes left.

    To be called only while no other process can write them.
    """
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if is_temporary(name, kind):
                remove(folder / name)


def remove_tree(path: Path) -> None:
    """Removes a folder of ours with all that is in it; a link in its place stays. Errors do not count."""
    if not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def _is_content(path: Path) -> bool:
    # A lock is empty: another process may have been faster.
    if path.name in _HIDDEN:
        return path.is_dir() or path.stat().st_size > 0
    return not (path.name.startswith(".") or path.name in _FROM_HYDRA)


def _marker(folder: Path) -> bool:
    file = folder / MARKER
    return file.is_file() and not file.is_symlink()


def _kind_marked(folder: Path) -> Kind | None:
    """The kind that the marker states; None for a marker that a power cut has emptied."""
    with suppress(ValueError):
        return Kind(_json(folder / MARKER).get("kind"))
    return None


def _instead(name: str) -> str:
    if name == "checkpoints":
        return "remove it and give storage.checkpoints=FOLDER for checkpoints elsewhere"
    return "put the file or folder itself in its place"


# ------------------------------------------------------------------------------- folders from before there was a marker


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json_of(file)
    except (OSError, Undecodable):
        return {}
    return found if isinstance(found, dict) else {}


def _is_run(folder: Path) -> bool:
    identity = _json(folder / "environment.json").get("trial")
    if isinstance(identity, str) and re.fullmatch(r"[0-9a-f]{32}", identity):
        return True
    if _is_trial(folder):
        return True
    # Whatever of it is damaged, the name and the sweep around it tell.
    parent = folder.absolute().parent
    return _TRIAL.fullmatch(folder.name) is not None and (_marker(parent) or _is_sweep(parent))


def _is_trial(folder: Path) -> bool:
    return {"format", "number", "hash", "overrides"} <= _json(folder / "trial.json").keys()


def _is_sweep(folder: Path) -> bool:
    if "format" in _json(folder / "sweep.json"):
        return True
    with suppress(OSError), os.scandir(folder) as found:
        return any(_is_trial(Path(one.path)) for one in found)
    return False


_RECOGNISED: Final[dict[Kind, Callable[[Path], bool]]] = {
    Kind.run: _is_run,
    Kind.sweep: _is_sweep,
    Kind.checkpoints: lambda _folder: False,
    Kind.ensemble: lambda _folder: False,
    Kind.benchmark: lambda _folder: False,
    Kind.night: lambda _folder: False,
    Kind.prediction: lambda _folder: False,
}
