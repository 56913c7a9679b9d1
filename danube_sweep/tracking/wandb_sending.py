"""A run's way to W&B. Errors there never stop the trial: its folder has everything."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, Protocol, final

from danube_sweep.config.schema import HIGHER_IS_BETTER, WandbTracking
from danube_sweep.storage import predictions
from danube_sweep.storage.predictions import Classified
from danube_sweep.storage.redaction import redact, redacted
from danube_sweep.tracking.prediction_charts import calibration, confusions

MOST_ROWS = 5000
MOST_CLASSES = 100
"""W&B's charts read 10,000 rows, and a larger confusion matrix has more cells than that."""

FALLING = ("loss", "perplexity", "ece", "mse", "rmse", "mae")
"""Metrics whose smallest value is their summary; of those that are known to rise it is the largest."""


class Tracker(Protocol):
    """Where results go besides the run folder. No method raises for trouble on the other side, and all end soon."""

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped the run there, on its page."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the metrics of a step."""

    def publish(self, predictions: Path, product: Path | None) -> None:
        """Sends the files of the run's end: its predictions as table and charts, and the folder of trained weights."""

    def summary(self, values: Mapping[str, object]) -> None:
        """Sends the values for lists of runs."""

    def finish(self, exit_code: int) -> None:
        """Ends the run in the tracker with its exit code."""


@final
class WandbRun:
    """An open run of W&B, or None for no more logging."""

    def __init__(self, run: Any, config: WandbTracking, say: Callable[[str], None], stop: Event | None = None) -> None:
        self._run, self._config, self._say, self._stop = run, config, say, stop
        self._seen: set[str] = set()
        self._step: int | None = None

    @property
    def stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._guarded(self._log, step, values)

    def publish(self, predictions: Path, product: Path | None) -> None:
        if self._config.log_predictions and predictions.is_file():
            self._attempted(self._publish_predictions, predictions)
        if self._config.log_adapter and product is not None:
            self._attempted(self._publish_product, product)

    def summary(self, values: Mapping[str, object]) -> None:
        self._guarded(self._summary, values)

    def finish(self, exit_code: int) -> None:
        self._guarded(self._finish, exit_code)

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        for name in values.keys() - self._seen:
            if goal := _goal(name.rpartition("/")[2]):
                self._run.define_metric(name, summary=goal)
        self._seen.update(values)
        self._step = step
        self._run.log(dict(values), step=step)

    def _publish_predictions(self, file: Path) -> None:
        table = predictions.read(file, lambda name: name != predictions.GROUP)
        rows = [list(row.values()) for row in table.slice(0, MOST_ROWS).to_pylist()]
        self._send("validation/predictions", table.column_names, rows)
        if found := predictions.classified(table):
            self._send_calibration(found)
            if len(found.classes) <= MOST_CLASSES:
                self._send_confusions(found)

    def _send_confusions(self, found: Classified) -> None:
        counts, classes = confusions(found).tolist(), found.classes
        columns = ["Actual", "Predicted", "nPredictions"]
        rows = [[a, b, counts[i][j]] for i, a in enumerate(classes) for j, b in enumerate(classes)]
        fields, texts = dict(zip(columns, columns, strict=True)), {"title": "Confusion matrix"}
        self._send("validation/confusion_matrix", columns, rows, ("wandb/confusion_matrix/v1", fields, texts))

    def _send_calibration(self, found: Classified) -> None:
        curve = calibration(found)
        points = zip(curve.confidence_B.tolist(), curve.accuracy_B.tolist(), curve.rows_B.tolist(), strict=True)
        rows = [["this model", *point] for point in points]
        rows += [["perfect", end, end, None] for end in (0.0, 1.0)]
        fields = {"step": "confidence", "lineVal": "accuracy", "lineKey": "line"}
        texts = {"title": "Calibration", "xname": "confidence"}
        columns = ["line", "confidence", "accuracy", "rows"]
        self._send("validation/calibration", columns, rows, ("wandb/lineseries/v0", fields, texts))

    def _send(self, key: str, columns: list[str], rows: list[list[Any]], chart: Any = None) -> None:
        import wandb

        table = wandb.Table(columns=columns, data=rows)
        # Bound here it goes as a file of the run. Left to `log` it would go as an artifact too, and that asks the
        # server first, for up to 19 s when it is silent.
        table.bind_to_run(self._run, key if chart is None else f"{key}_table", self._step or 0)
        if chart is None:
            self._run.log({key: table}, step=self._step)
        else:
            name, fields, texts = chart
            self._run.log({key: wandb.plot_table(name, table, fields, texts)}, step=self._step)

    def _publish_product(self, folder: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"{folder.name}-{self._run.id}", type="model")
        # The folder is final: nothing is copied, and a later `wandb sync` reads it where it is.
        artifact.add_dir(str(folder), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def _summary(self, values: Mapping[str, object]) -> None:
        # wandb holds the last row back until the next step, and would later write it over the summary.
        self._run.log({}, commit=True)
        self._run.summary.update(redacted(values, shown=True))

    def _finish(self, exit_code: int) -> None:
        self._run.finish(exit_code)
        self._run = None

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._run is None:
            return
        try:
            call(*arguments)
        except Exception as error:  # the trial continues after any error: metrics.csv has the numbers
            folder, self._run = self._run.settings.sync_dir, None
            self._say(f"W&B failed ({reason(error)}), nothing more goes there; {upload_later(folder)}")

    def _attempted(self, call: Callable[[Path], None], path: Path) -> None:
        if self._run is None:
            return
        try:
            call(path)
        except Exception as error:  # the numbers can still go there
            self._say(f"{path.name} did not go to W&B ({reason(error)}); it is in the run folder")


def _goal(name: str) -> str | None:
    if name in HIGHER_IS_BETTER:
        return "max"
    return "min" if name in FALLING or name.endswith("loss") else None


def upload_later(folder: str) -> str:
    """The command that uploads W&B's folder of a run. Without its flag, `wandb sync` skips runs that began online."""
    option = "" if Path(folder).name.startswith("offline") else "--no-skip-online "
    return f"upload later with: wandb sync {option}{shlex.quote(folder)}"


def reason(error: Exception) -> str:
    """The error's last line, without secrets."""
    said = redact(str(error)).strip().splitlines()
    lines = [line for line in said if "For further information" not in line] or [type(error).__name__]
    return lines[-1].strip().removeprefix("while retrying: ")[:200]
