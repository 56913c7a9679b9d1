"""The folder of a benchmark: benchmark.json, and under scores/ a file for each task that is done."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, final

from danube_sweep.benchmark.score_task import Score
from danube_sweep.errors import CheckpointError
from danube_sweep.storage.files import read_json, write_json, writing
from danube_sweep.storage.ownership import Kind, take_over

FORMAT: Final = 1


@final
class ScoreFolder:
    """Scores of one model on some tasks, kept task by task: a second process goes on where the first one stopped."""

    def __init__(self, path: Path, taken: Callable[[], None] = lambda: None) -> None:
        """`taken` is called once the folder is known to be this model's."""
        self.path, self._taken = path, taken

    @property
    def summary(self) -> Path:
        """The file that a reader wants."""
        return self.path / "benchmark.json"

    def take(self, key: str) -> None:
        """Makes the folder or takes the one that is there.

        Raises CheckpointError for a folder that holds something else, or scores of another model or other settings.
        """
        take_over(self.path, Kind.benchmark)
        stored = read_json(self.summary) if self.summary.is_file() else {}
        if stored.get("key") not in (None, key):
            raise CheckpointError(
                f"{self.path} holds the benchmark of another model, other settings or other versions; give another -o"
            )
        with writing(self.path):
            (self.path / "scores").mkdir(exist_ok=True)
        if "key" not in stored:  # also the scores of a process that is killed are of this model alone
            self.write({"tasks": {}, "state": "missing", **stored, "key": key})
        self._taken()

    def read(self, stage: str, task: str) -> dict[str, Any] | None:
        """What is kept of a task: its scores, and what was measured; None if it is not done."""
        file = self._file(stage, task)
        if not file.is_file():
            return None
        stored = read_json(file)
        return {**stored, "scores": [Score(**one) for one in stored["scores"]]}

    def keep(self, stage: str, task: str, scores: list[Score], measured: dict[str, Any]) -> None:
        """Writes a task's scores. Raises DiskError."""
        write_json(self._file(stage, task), {**measured, "scores": [asdict(score) for score in scores]})

    def write(self, summary: dict[str, Any]) -> None:
        """Writes benchmark.json. Raises DiskError."""
        write_json(self.summary, {"format": FORMAT, **summary})

    def _file(self, stage: str, task: str) -> Path:
        return self.path / "scores" / f"{stage}-{task}.json"
