"""Predictions of a run folder for a file, from the words of a command or a call to the csv. Importing it is cheap."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from danube_sweep.errors import ConfigError
from danube_sweep.storage.outputs import refuse_existing
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.screen import Terminal, row_bar

if TYPE_CHECKING:
    from danube_sweep.inference.predict import FinishedRun, Request

    Reshape = Callable[[FinishedRun, Request], Request]


@dataclass(frozen=True)
class PredictWords:
    """The arguments of `danube-sweep predict`, as plain values. None stands for the run's own."""

    run: Path
    source: Path
    target: Path
    id_column: str | None = None
    like: Path | None = None
    swap: bool = False
    labels: bool = False
    batch_rows: int = 16
    accelerator: str = "auto"
    compute: str | None = None
    model_path: Path | None = None
    overwrite: bool = False
    calibrate: str | None = None
    """The method of calibration."""
    plainly: bool = False
    """With labels: without the rule that is kept with the run or the ensemble."""


def predict_run(words: PredictWords, reshape: "Reshape | None" = None) -> int:
    """Writes the predictions of a run, a sweep's best or an ensemble; returns the number of rows. Raises UserError.

    `reshape` turns the request for predictions into one for another table.
    """
    quiet_libraries()
    from danube_sweep.config.schema import Compute, Device
    from danube_sweep.inference.predict import Place
    from danube_sweep.inference.predict_ensemble import (
        answer_together,
        calibrated,
        checked_requests,
        open_parts,
        rule_of,
    )
    from danube_sweep.inference.prediction_table import Form

    parts, notes = open_parts(words.run)
    rule = rule_of(words.run, parts) if words.labels and not words.plainly else None
    if rule is not None:
        notes = [*notes, f"labels are decided by the rule for {rule.said}"]
    if words.calibrate:
        if rule is not None:
            raise ConfigError(
                "--calibrate changes what the rule of the labels was fitted on; give --likeliest, or no --calibrate"
            )
        parts, said = calibrated(parts, words.calibrate)
        notes = [*notes, said]
    form = Form(words.swap, words.labels, words.id_column, words.like, rule)
    requests = checked_requests(parts, words.source, words.target, form)
    if reshape is not None:
        requests = [reshape(part.run, request) for part, request in zip(parts, requests, strict=True)]
    refuse_existing(words.target, "-o", overwrite=words.overwrite)
    for note in dict.fromkeys([*notes, *(note for request in requests for note in request.notes)]):
        Terminal().note(note)
    compute = Compute(words.compute) if words.compute else None
    place = Place(Device(accelerator=words.accelerator), compute, words.model_path)
    orders = sum(2 if request.swap else 1 for request in requests)
    with row_bar(len(requests[0].input.ids) * orders) as done:
        return answer_together(parts, requests, place, batch_rows=words.batch_rows, done=done)
