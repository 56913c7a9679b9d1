"""A run's TensorBoard events, in its own folder. Errors in writing them never stop the trial."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import yaml

from danube_sweep.config.schema.states import COMPLETE
from danube_sweep.storage import predictions
from danube_sweep.storage.redaction import redacted
from danube_sweep.tracking.prediction_charts import confusions
from danube_sweep.tracking.wandb_sending import MOST_CLASSES, reason

FOLDER: Final = "tensorboard"
"""Where the events of a run lie, in its folder; `tensorboard --logdir` of a sweep shows one run per trial."""
RESULT: Final = "result/"
"""The prefix of tags for lists of runs: the metrics of the best step."""


@final
class TensorboardRun:
    """The events of a run; `resolved` is its config, as text and as hyperparameters.

    `step` is that of the end if no row is logged before it.
    """

    stopped = False

    def __init__(self, folder: Path, resolved: Mapping[str, Any], say: Callable[[str], None], step: int = 0) -> None:
        self._folder, self._config, self._say = folder / FOLDER, redacted(resolved, shown=True), say
        self._writer: Any = None
        self._end: Any = None
        """The end of a session of hyperparameters. TensorBoard keeps the first, so a run that may continue has none."""
        self._failed = self._complete = False
        self._step = step

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._guarded(self._log, step, values)

    def publish(self, predictions: Path, product: Path | None) -> None:
        if predictions.is_file():
            self._guarded(self._publish, predictions)

    def summary(self, values: Mapping[str, object]) -> None:
        self._guarded(self._summary, values)

    def finish(self, exit_code: int) -> None:
        self._guarded(self._finish, exit_code)

    def _open(self, step: int | None = None) -> Any:
        # Opened by the first row, which has the step after a checkpoint: TensorBoard then hides the later rows that an
        # earlier process had written.
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard import summary as summaries

            hparams: Any = summaries.hparams
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
            shown = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", _code(shown), step or 0)
            experiment, start, self._end = hparams(dict(_flat(self._config)), {})
            for part in (experiment, start):
                self._writer.file_writer.add_summary(part)
        return self._writer

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        writer, self._step = self._open(step), step
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # a kill loses nothing that was logged

    def _publish(self, file: Path) -> None:
        found = predictions.classified(predictions.read(file, lambda name: name != predictions.GROUP))
        if found is None:
            return
        if len(found.classes) > MOST_CLASSES:
            self._say(f"no confusion matrix for TensorBoard: {len(found.classes)} classes, it takes {MOST_CLASSES}")
            return
        counts, names = confusions(found).tolist(), [_cell(name) for name in found.classes]
        lines = [["actual \\ predicted", *names], ["---", *("---:" for _ in names)]]
        lines += [[f"**{name}**", *map(str, row)] for name, row in zip(names, counts, strict=True)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self._open().add_text("validation/confusion_matrix", table, self._step)

    def _summary(self, values: Mapping[str, object]) -> None:
        writer, self._complete = self._open(), values.get("state") in COMPLETE
        for name, value in redacted(values, shown=True).items():
            if isinstance(value, int | float):
                writer.add_scalar(f"{RESULT}{name}", value, self._step)
            else:
                writer.add_text(f"{RESULT}{name}", str(value), self._step)

    def _finish(self, exit_code: int) -> None:
        writer, self._failed = self._open(), True  # nothing after the end
        if self._complete:
            writer.file_writer.add_summary(self._end)
        writer.close()

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:  # the trial continues after any error: metrics.csv has the numbers
            self._failed = True
            self._say(f"TensorBoard's events failed ({reason(error)}), nothing more goes into {self._folder}")


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, bool | int | float | str]]:
    found: list[tuple[str, bool | int | float | str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((f"{prefix}{key}", value if isinstance(value, bool | int | float) else str(value)))
    return found


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(name: str) -> str:
    return " ".join(name.replace("\\", "\\\\").replace("|", "\\|").split()) or "(empty)"
