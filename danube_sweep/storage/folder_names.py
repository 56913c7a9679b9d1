"""The names of result folders: of a run, of a sweep, and of a trial in its sweep.

outputs/2026-11-23/18-20-00-3fa2b1c9                    a run; Hydra makes it by hydra.run.dir of conf/config.yaml
multirun/2026-11-23/18-20-00                            a sweep
multirun/2026-11-23/18-20-00/001_rank-16_3fa2b1c9       its first trial: number, varied values, start of its hash
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

SWEEPS, RUNS = Path("multirun"), Path("outputs")
_FLOAT = re.compile(r"-?\d+\.\d*(e[+-]?\d+)?")
_WORD = re.compile(r"[^A-Za-z0-9._+-]+")


def sweep_folder_name(now: datetime) -> Path:
    """The folder of a sweep that starts now, relative to the working directory."""
    return SWEEPS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"


def run_folder_name(now: datetime, identity: str) -> Path:
    """The folder of a run that starts now, relative to the working directory: as conf/config.yaml has it."""
    return RUNS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{identity[:8]}"


def trial_folder_name(number: int, overrides: Sequence[str], identity: str) -> str:
    """The name of a trial's folder in its sweep; `overrides` are those that not all trials have."""
    return "_".join(word for word in (f"{number:03d}", slug(overrides), identity[:8]) if word)


def number_in(name: str) -> int | None:
    """The number of the trial whose folder has this name."""
    digits = re.match(r"\d{3,9}(?=_)", name)
    return int(digits[0]) if digits else None


def hash_in(name: str) -> str | None:
    """The first digits of the hash of the trial whose folder has this name."""
    digits = re.search(r"_([0-9a-f]{8})$", name)
    return digits[1] if digits else None


def slug(overrides: Sequence[str], longest: int = 80) -> str:
    """The varied values of a trial as part of a folder's name: `rank-16_lr-0.001`. Safe in any shell and as an
    override.

    `longest` is in characters.
    """
    words = []
    pairs = [override.lstrip("+~").partition("=")[::2] for override in overrides]
    lasts = Counter(key.rpartition(".")[2] for key, _ in pairs)
    for key, value in pairs:
        name = key.rpartition(".")[2]
        name = name if lasts[name] == 1 else key
        value = value.rstrip("/").rpartition("/")[2]
        if len(value) > 6 and _FLOAT.fullmatch(value):
            value = f"{float(value):.3g}"
        words.append(_WORD.sub("-", f"{name}-{value}").strip("-."))
    return "_".join(words)[:longest].rstrip("-._")
