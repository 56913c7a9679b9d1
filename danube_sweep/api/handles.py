"""A run, a sweep and an ensemble as Python has them: their folders, read whenever they are asked."""

import functools
import os
from abc import ABC, abstractmethod
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, final

from danube_sweep import paths
from danube_sweep.api.call_words import path_of
from danube_sweep.api.data_argument import file_of
from danube_sweep.api.html_tables import pairs_html, ranking_html
from danube_sweep.config.neutral_text import neutral
from danube_sweep.config.schema import Config, Target
from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.config.stored import load_config
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.inference.predict_run import PredictWords
from danube_sweep.report.page import page_file, write_page
from danube_sweep.results.rank import rank_sweep
from danube_sweep.results.ranking_files import record
from danube_sweep.results.rows import Ranking
from danube_sweep.results.trial_results import StoredTrial, read_trial, read_trials
from danube_sweep.results.winning_run import winning_run
from danube_sweep.storage import received
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.sweeping.execute.messages import Job
from danube_sweep.sweeping.execute.own_tasks import predict_task
from danube_sweep.sweeping.execute.shown_child import run_in_child
from danube_sweep.sweeping.execute.slots import check_devices
from danube_sweep.terminal.run_summary import summary

if TYPE_CHECKING:
    import pandas

    from danube_sweep.api.data_argument import DataArgument

_WHOLE: Final = r"0|-?[1-9][0-9]{0,17}"
ACCELERATORS: Final = ("auto", "cpu", "cuda")


class _Answering(ABC):
    """What answers new rows: a folder, and whether its paths are trusted."""

    def __init__(self, path: "str | os.PathLike[str]", *, trust: bool = False) -> None:
        self.path, self._trust = path_of(path, "path").absolute(), trust

    @property
    @abstractmethod
    def _target(self) -> Target:
        """What the answers are."""

    def predict(
        self,
        rows: "DataArgument",
        *,
        labels: bool = False,
        swap: bool = False,
        id_column: str | None = None,
        batch_rows: int = 16,
        accelerator: str = "auto",
        devices: int | str = 1,
    ) -> "pandas.DataFrame":
        """Answers to a file or a DataFrame, in its order: ids, and a probability for each class or a number.

        An ensemble gives the weighted mean of its members' answers. `labels`, `swap`, `id_column` and `devices` (a
        number or "all") are those of `danube-sweep predict`, as are the errors.
        """
        if not isinstance(batch_rows, Integral) or isinstance(batch_rows, bool):
            raise ConfigError(f"batch_rows must be a whole number, got {batch_rows!r}")
        if batch_rows < 1:
            raise ConfigError(f"batch_rows must be at least 1, got {batch_rows}")
        if accelerator not in ACCELERATORS:
            raise ConfigError(f"accelerator={accelerator}: no such option; there are {', '.join(ACCELERATORS)}")
        check_devices(devices)
        target = self._target
        for line in received.check(self.path, trust=self._trust):
            print(f"note: {neutral(line)}")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "predictions.csv"
            words = PredictWords(
                self.path,
                file_of(rows),
                file,
                id_column=id_column,
                swap=swap,
                labels=labels,
                batch_rows=int(batch_rows),
                accelerator=accelerator,
                devices=devices,
            )
            job = Job(self.path, Path.cwd(), dict(os.environ))
            run_in_child(functools.partial(predict_task, words), job, on_cpu=accelerator == "cpu")
            return _typed(file, target, labels=labels)


@final
class Run(_Answering):
    """One run: a trial and its results. `trust` lets `predict` follow the paths of a folder that was not made here."""

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)

    @property
    def _target(self) -> Target:
        return self.config.head.target

    @property
    def config(self) -> Config:
        """The trial. Raises CheckpointError for a damaged file."""
        return load_config(self._folder.config)

    @property
    def state(self) -> str:
        """finished, pruned, failed, oom, …; without a result running, interrupted or waiting.

        Raises CheckpointError for a folder that is missing, or that is no run.
        """
        return self._stored().state

    @property
    def result(self) -> dict[str, Any]:
        """result.json. Raises CheckpointError for a run that has not ended."""
        found = self._folder.read_result()
        if found is None:
            raise CheckpointError(f"{self.path} is {self.state}; go on with: danube-sweep resume {self.path}")
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best step by address: validation/log_loss, …, and test/… where that part was scored."""
        parts = {part: self.result.get(part) or {} for part in ("validation", "test")}
        return {f"{part}/{name}": value for part, metrics in parts.items() for name, value in metrics.items()}

    def history(self) -> "pandas.DataFrame":
        """metrics.csv: a row for every step that was logged and for every validation."""
        import pandas

        check_folder(self.path, "run")
        if not self._folder.metrics.is_file():
            raise CheckpointError(f"{self.path} has not begun to train: it has no {self._folder.metrics.name}")
        return pandas.read_csv(self._folder.metrics)

    def __repr__(self) -> str:
        try:
            state = self.state
        except CheckpointError:
            state = "no run" if self.path.is_dir() else "no such folder"
        return f"Run({str(paths.from_here(self.path))!r}, {state})"

    def _repr_html_(self) -> str:
        stored = self._stored()
        ended = [("state", stored.state), *([("reason", stored.reason)] if stored.reason else [])]
        pairs = summary(stored.result) if stored.state in COMPLETE else []
        return pairs_html(str(paths.from_here(self.path)), [*ended, *pairs])

    def _stored(self) -> StoredTrial:
        check_folder(self.path, "run")
        if not (self._folder.config.is_file() or self._folder.trial.is_file() or self._folder.result.is_file()):
            raise CheckpointError(f"{self.path} is no run: it has no config.yaml; give a run's folder, or use ds.load")
        return read_trial(self._folder, [])


@final
class Sweep:
    """A sweep, running or ended. `trust` is passed on to its runs."""

    def __init__(self, path: "str | os.PathLike[str]", *, trust: bool = False) -> None:
        self.path, self._trust = path_of(path, "path").absolute(), trust

    @property
    def runs(self) -> list[Run]:
        """Every trial, by number."""
        return [Run(trial.folder.path, trust=self._trust) for trial in read_trials(self.path)[0]]

    def ranking(self) -> "pandas.DataFrame":
        """The columns of ranking.csv, best row first; trials that differ only in their seed or fold are one row."""
        import pandas

        ranking = self._ranking()
        return pandas.DataFrame([record(ranking, row) for row in ranking.shown])

    @property
    def best(self) -> Run:
        """The winning row's run with the best metric. Raises CheckpointError while no trial has finished."""
        return Run(winning_run(self.path)[0], trust=self._trust)

    def report(self, output: "str | os.PathLike[str] | None" = None, *, overwrite: bool = False) -> Path:
        """Draws the page of `danube-sweep report` and returns its path, by default report.html in the folder.

        Raises DiskError for another file that exists, unless it is to be overwritten.
        """
        file = page_file(self.path, None if output is None else path_of(output, "output"), overwrite=overwrite)
        return write_page(self.path, file)[1]

    def __repr__(self) -> str:
        return f"Sweep({str(paths.from_here(self.path))!r}, {_counted(self, 'trials')})"

    def _repr_html_(self) -> str:
        return ranking_html(str(paths.from_here(self.path)), self._ranking())

    def _ranking(self) -> Ranking:
        return rank_sweep(self.path)


@final
class Ensemble(_Answering):
    """Several finished models that answer together: an ensemble, or a refit of several. `trust` is that of a run."""

    @property
    def _target(self) -> Target:
        return self.runs[0].config.head.target

    @property
    def runs(self) -> list[Run]:
        """The runs of its members, in their order; one for each fold. Raises CheckpointError for a damaged file."""
        return [Run(run, trust=self._trust) for member in EnsembleFolder(self.path).read() for run in member.runs]

    def members(self) -> "pandas.DataFrame":
        """Name, weight, temperature and number of runs of each member."""
        import pandas

        members = EnsembleFolder(self.path).read()
        named = ((one.name, one.weight, one.temperature, len(one.runs)) for one in members)
        return pandas.DataFrame(named, columns=["member", "weight", "temperature", "runs"])

    def __repr__(self) -> str:
        return f"Ensemble({str(paths.from_here(self.path))!r}, {_counted(self, 'runs')})"


def _counted(handle: Sweep | Ensemble, what: str) -> str:
    try:
        return f"{len(handle.runs)} {what}"
    except CheckpointError:
        return "damaged" if handle.path.is_dir() else "no such folder"


def check_folder(path: Path, kind: str) -> None:
    """Raises CheckpointError for a folder that is missing."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: there is no such folder; give that of a {kind}")


def _typed(file: Path, target: Target, *, labels: bool) -> "pandas.DataFrame":
    import pandas

    found = pandas.read_csv(file, dtype=str, keep_default_na=False)
    names = (2 + labels) if target is Target.words else 1
    for place, name in enumerate(found.columns):
        found[name] = _whole(found[name]) if labels or place < names else found[name].astype(float)
    return found


def _whole(texts: Any) -> Any:
    """Ids and labels that are whole numbers as such, any others as the texts that they are."""
    return texts.astype("int64") if texts.str.fullmatch(_WHOLE).all() else texts
