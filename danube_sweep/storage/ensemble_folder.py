"""The folder of an ensemble: ensemble.json names its members, predictions.parquet has its validation answers."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import read_json, remove, write_json
from danube_sweep.storage.ownership import Kind, remove_temporaries, take_over
from danube_sweep.storage.refit_file import NAME

FORMAT = 1


@dataclass(frozen=True)
class Weighted:
    """A member: its share of the answer, and the runs that give it, one for each fold."""

    name: str
    weight: float
    temperature: float
    runs: list[Path]
    hashes: list[str]
    """Of the runs' trials."""


@dataclass(frozen=True)
class EnsembleFolder:
    """The files of an ensemble."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / "ensemble.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def trials(self) -> Path:
        """Of a refit: the sweep folder of the models that it trained."""
        return self.path / "trials"

    @property
    def refitted(self) -> bool:
        """Whether it is a refit of several models: none was chosen, and all have one share. Raises CheckpointError."""
        return (self.path / NAME).is_file() and not self.read_scores()[0]

    def write(self, members: Sequence[Weighted], scores: dict[str, Any], chosen: str | None = None) -> None:
        """`scores` by method, and the one that was `chosen`. Raises CheckpointError, DiskError.

        Runs are kept relative to the folder, so that they can move together. Answers of earlier members are removed.
        """
        take_over(self.path, Kind.ensemble)
        remove_temporaries(self.path, Kind.ensemble)
        for answers in (self.predictions, self.path / "oof.parquet"):
            remove(answers)
        here = self.path.resolve()
        named = [{**asdict(one), "runs": [os.path.relpath(run.resolve(), here) for run in one.runs]} for one in members]
        of_choice = {} if chosen is None else {"chosen": chosen}
        write_json(self.file, {"format": FORMAT, "members": named, "scores": scores, **of_choice})

    def read(self) -> list[Weighted]:
        """The members. Raises CheckpointError for a file that is missing, damaged or of another version."""
        stored = self._stored()
        try:
            return [self._member(one) for one in stored["members"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged() from error

    def read_scores(self) -> tuple[dict[str, dict[str, float]], str | None]:
        """The scores of each method on unseen rows, and the method that was chosen. A refit has neither.

        Raises CheckpointError, as `read` does.
        """
        stored = self._stored()
        try:
            found = {
                str(name): {key: float(value) for key, value in one.items()} for name, one in stored["scores"].items()
            }
            chosen = stored.get("chosen")
            return found, None if chosen is None else str(chosen)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged() from error

    def _stored(self) -> dict[str, Any]:
        stored = read_json(self.file)
        if stored.get("format") != FORMAT:
            raise CheckpointError(f"{self.file} is of another version ({stored.get('format')!r}); make it again")
        return stored

    def _damaged(self) -> CheckpointError:
        return CheckpointError(f"{self.file} is damaged; make it again with danube-sweep ensemble")

    def _member(self, stored: dict[str, Any]) -> Weighted:
        runs = [Path(os.path.normpath(self.path / run)) for run in stored["runs"]]
        hashes = [str(one) for one in stored["hashes"]]
        if len(runs) != len(hashes):
            raise ValueError("a hash for each run")
        return Weighted(str(stored["name"]), float(stored["weight"]), float(stored["temperature"]), runs, hashes)


def refuse_ensemble(path: Path, way_out: str) -> None:
    """Raises CheckpointError, with `way_out`, for the folder of an ensemble: only runs and sweeps are accepted."""
    if EnsembleFolder(path).file.is_file():
        raise CheckpointError(f"{path} is an ensemble; {way_out}")
