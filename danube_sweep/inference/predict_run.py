"""Predictions of a run folder for a file, from the words of a command or a call to the csv. Importing it is cheap."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from danube_sweep.errors import ConfigError
from danube_sweep.storage.outputs import check_place, refuse_existing
from danube_sweep.terminal.quiet_libraries import quiet_libraries
from danube_sweep.terminal.row_bar import row_bar
from danube_sweep.terminal.screen import Terminal

if TYPE_CHECKING:
    from danube_sweep.inference.divided import Devices
    from danube_sweep.inference.predict import FinishedRun, Place, Request
    from danube_sweep.inference.predict_ensemble import Part
    from danube_sweep.results.calibration import Calibration
    from danube_sweep.storage.prediction_parts import PredictionParts

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
    calibrate_on: Path | None = None
    """Predictions of rows with labels to calibrate on, instead of those in the folder."""
    plainly: bool = False
    """With labels: without the rule that is kept with the run or the ensemble."""
    deadline_h: float | None = None
    """Hours in which all must be written; fewer members and one order are chosen before, if need be."""
    devices: int | str = 1
    """How many devices divide the rows, or `all`. For who calls `predict_run`, which is given them."""


def predict_run(words: PredictWords, reshape: "Reshape | None" = None, devices: "Devices | None" = None) -> int:
    """Writes the predictions of a run, a sweep's best or an ensemble; returns the number of rows.

    `reshape` turns the request for predictions into one for another table. `devices` divide the rows; by default this
    process answers alone. Raises UserError, and TrialFailed if a process of theirs dies.
    """
    started = time.monotonic()
    quiet_libraries()
    from danube_sweep.config.schema import Compute, Device
    from danube_sweep.inference.divided import ThisDevice
    from danube_sweep.inference.predict import Place
    from danube_sweep.inference.predict_ensemble import (
        checked_requests,
        open_parts,
        rule_of,
        target_of,
    )
    from danube_sweep.inference.prediction_table import Form

    parts, notes = open_parts(words.run)
    rule = rule_of(words.run, parts) if words.labels and not words.plainly else None
    if rule is not None:
        notes = [*notes, f"labels are decided by the rule for {rule.said}"]
    calibration = _calibration(words, parts, ruled=rule is not None)
    if calibration is not None:
        notes = [*notes, calibration.said()]
    target = target_of(words.run, parts)
    if words.labels and rule is None and any(part.run.config.head.target is not target for part in parts):
        notes = [*notes, "labels are the median class, since some of the heads know the order of the classes"]
    form = Form(words.swap, words.labels, words.id_column, words.like, rule, target)
    requests = checked_requests(parts, words.source, words.target, form)
    if reshape is not None:
        requests = [reshape(part.run, request) for part, request in zip(parts, requests, strict=True)]
    if any(request.swap for request in requests) and (rule is not None or words.calibrate):
        fitted = "the rule of the labels" if rule is not None else "the calibration"
        notes.append(f"--swap: {fitted} was fitted on answers to one order, not on the mean of both")
    refuse_existing(words.target, "-o", overwrite=words.overwrite)
    for note in dict.fromkeys([*notes, *(note for request in requests for note in request.notes)]):
        Terminal().note(note)
    compute = Compute(words.compute) if words.compute else None
    place = Place(Device(accelerator=words.accelerator), compute, words.model_path)
    asked = _Asked(place, words, started, devices or ThisDevice(), ruled=rule is not None, calibration=calibration)
    return _answered(parts, requests, asked)


def _calibration(words: PredictWords, parts: "list[Part]", *, ruled: bool) -> "Calibration | None":
    from danube_sweep.inference.predict_ensemble import calibration_of

    if words.calibrate is None:
        if words.calibrate_on is not None:
            raise ConfigError(f"--calibrate-on {words.calibrate_on} needs --calibrate; give both, or none")
        return None
    if ruled:
        raise ConfigError(
            "--calibrate changes what the rule of the labels was fitted on; give --likeliest, or no --calibrate"
        )
    if words.calibrate_on is not None:
        check_place(words.target, "-o", [words.calibrate_on], draws="submission.csv")
    return calibration_of(words.run, parts, words.calibrate, words.calibrate_on)


@dataclass(frozen=True)
class _Asked:
    """How a prediction is made."""

    place: "Place"
    words: PredictWords
    started: float
    devices: "Devices"
    ruled: bool
    """Whether labels are decided by a rule."""
    calibration: "Calibration | None"


def _answered(parts: "list[Part]", requests: "list[Request]", asked: _Asked) -> int:
    """Answers the requests. If that takes several steps, the parts are kept on disk until all of them are answered."""
    from danube_sweep.inference.predict import CHUNK_ROWS
    from danube_sweep.inference.predict_ensemble import fingerprint
    from danube_sweep.storage.prediction_parts import held_parts

    words = asked.words

    def fitted(kept: "PredictionParts | None") -> "tuple[list[Part], list[Request]]":
        found = _fitted(parts, requests, asked, kept)
        if (asked.ruled or asked.calibration is not None) and len(found[0]) < len(parts):
            fitted = "the rule of the labels" if asked.ruled else "the calibration"
            Terminal().note(f"{fitted} was fitted on the answers of all {len(parts)} runs")
        return found

    if len(requests[0].input.ids) <= CHUNK_ROWS and len(parts) == 1:
        return _shown(*fitted(None), asked, None)
    with held_parts(words.target) as kept:
        if kept.begin(fingerprint(parts, requests, asked.place, deadline=words.deadline_h is not None)):
            Terminal().note(f"{kept.folder}: an earlier prediction was interrupted; this one continues it")
        try:
            count = _shown(*fitted(kept), asked, kept)
        except BaseException:
            if kept.give_up():
                Terminal().note(f"{kept.folder} keeps the finished parts; the same command goes on, or delete it")
            raise
        kept.finish()
    return count


def _shown(parts: "list[Part]", requests: "list[Request]", asked: _Asked, kept: "PredictionParts | None") -> int:
    from danube_sweep.inference.predict_ensemble import answer_together, rows_left

    with row_bar(rows_left(parts, requests, asked.place, kept)) as done:
        return answer_together(
            parts,
            requests,
            asked.place,
            batch_rows=asked.words.batch_rows,
            done=done,
            kept=kept,
            devices=asked.devices,
            calibration=asked.calibration,
        )


def _fitted(
    parts: "list[Part]", requests: "list[Request]", asked: _Asked, kept: "PredictionParts | None"
) -> "tuple[list[Part], list[Request]]":
    """The members and orders that fit the deadline; those of an interrupted prediction stay as they were chosen."""
    from danube_sweep.inference.deadline import Choice, choose
    from danube_sweep.inference.predict_ensemble import chosen_parts, works_of
    from danube_sweep.inference.runs_in_packs import read_alike

    words, place = asked.words, asked.place
    if words.deadline_h is None:
        return parts, requests
    known = None if kept is None else kept.choice()
    if known is not None:
        choice = Choice([int(one) for one in known["members"]], bool(known["swap"]), None)
        if len(choice.members) < len(parts) or choice.swap < any(request.swap for request in requests):
            Terminal().note(f"--deadline-h: {len(choice.members)} of {len(parts)} runs answer, as was chosen before")
        return chosen_parts(parts, requests, choice)
    packs = read_alike([part.run for part in parts], place)
    costs = asked.devices.costs(works_of(parts, requests, place, packs, words.batch_rows))
    left_s = words.deadline_h * 3600 - (time.monotonic() - asked.started)
    swaps = [requests[places[0]].swap for places in packs]
    costs = [cost.on(asked.devices.count) for cost in costs]
    choice = choose([part.share for part in parts], packs, costs, left_s, swaps=swaps)
    if choice.said is not None:
        Terminal().note(choice.said)
    if kept is not None:
        kept.choose({"members": choice.members, "swap": choice.swap})
    return chosen_parts(parts, requests, choice)
