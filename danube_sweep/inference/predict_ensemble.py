"""Predictions of an ensemble: its runs answer, in packs where they share a backbone, and their answers are averaged.

Axes: N examples, A answers of an example.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from danube_sweep import __version__
from danube_sweep.config.blended_target import blended_target
from danube_sweep.config.schema import Target
from danube_sweep.errors import CheckpointError, ConfigError
from danube_sweep.inference.deadline import Choice
from danube_sweep.inference.divided import Devices, Done, ThisDevice, Work
from danube_sweep.inference.predict import (
    CHUNK_ROWS,
    FinishedRun,
    Place,
    Request,
    checked_request,
    open_run,
    write_answers,
)
from danube_sweep.inference.prediction_table import SHARES, Form, Predictions
from danube_sweep.inference.runs_in_packs import read_alike
from danube_sweep.planner.present_gpu import has_gpu_files, named_gpus
from danube_sweep.results.calibration import Calibration, calibrate
from danube_sweep.results.decisions.decide_command import Decided, read_rule
from danube_sweep.results.ensemble.members import tempered
from danube_sweep.results.winning_run import winning_run
from danube_sweep.storage.ensemble_folder import EnsembleFolder, Weighted
from danube_sweep.storage.files import content_hash
from danube_sweep.storage.prediction_parts import Part as Stored
from danube_sweep.storage.prediction_parts import PredictionParts
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.storage.sweep_folder import SweepFolder


@dataclass(frozen=True)
class Part:
    """A run, and its share of the ensemble's answer."""

    run: FinishedRun
    share: float
    temperature: float


def open_parts(path: Path) -> tuple[list[Part], list[str]]:
    """The runs that answer for a folder, of a run, a sweep (its best trial) or an ensemble, and which they are.

    Raises CheckpointError.
    """
    ensemble = EnsembleFolder(path)
    if ensemble.file.is_file():
        parts = open_ensemble(ensemble)
        return parts, [f"{path}: {len(parts)} run{'s' * (len(parts) > 1)}, in one pass where they share a backbone"]
    if SweepFolder(path).file.is_file():
        path, said = winning_run(path)
        return [Part(open_run(path), 1.0, 1.0)], [said]
    return [Part(open_run(path), 1.0, 1.0)], []


def calibration_of(path: Path, parts: Sequence[Part], method: str, source: Path | None) -> Calibration:
    """The calibration of the parts' mean answer, by `source` or by the predictions of the folder.

    Raises ConfigError for answers or predictions that cannot be calibrated, and for those of other classes.
    """
    if target_of(path, parts) not in SHARES:
        raise ConfigError("--calibrate needs one class an example; this run answers otherwise, so leave it out")
    ensemble = EnsembleFolder(path)
    own = ensemble.predictions if ensemble.file.is_file() else RunFolder(parts[0].run.path).predictions
    found = calibrate(source or own, method)
    if found.classes != parts[0].run.classes:
        raise ConfigError(
            f"--calibrate-on {source or own}: its classes are not those of the model; give predictions of it"
        )
    return found


def rule_of(path: Path, parts: Sequence[Part]) -> Decided | None:
    """The rule that labels are decided by, of the ensemble in `path` or of the run that answers for it; None without.

    Raises CheckpointError for one that is damaged or of another model.
    """
    folder = path if EnsembleFolder(path).file.is_file() else parts[0].run.path
    return read_rule(folder, target_of(path, parts), parts[0].run.classes)


def target_of(path: Path, parts: Sequence[Part]) -> Target:
    """The target of the mean answer of the folder's parts. Raises ConfigError if their answers have none."""
    return blended_target([part.run.config for part in parts], str(path))


def open_ensemble(folder: EnsembleFolder) -> list[Part]:
    """The runs of an ensemble, verified; nothing is loaded.

    Raises CheckpointError for a run that is gone, changed, or of other classes than the first, ConfigError for heads
    whose answers have no mean.
    """
    parts = [part for member in folder.read() for part in _parts(folder, member)]
    if not parts:
        raise CheckpointError(f"{folder.file} has no members; make it again with danube-sweep ensemble")
    first = parts[0].run
    target_of(folder.path, parts)
    for part in parts[1:]:
        if part.run.classes != first.classes:
            raise CheckpointError(
                f"{part.run.path} has other classes than {first.path}; make the ensemble again, without one of them"
            )
    return parts


def _parts(folder: EnsembleFolder, member: Weighted) -> list[Part]:
    found = []
    for path, wanted in zip(member.runs, member.hashes, strict=True):
        if not path.is_dir():
            raise CheckpointError(
                f"{folder.file}: the run {path} of the member {member.name} is gone; bring it back, or make the "
                "ensemble again without it"
            )
        run = open_run(path)
        if (RunFolder(path).read_result() or {}).get("trial") != wanted:
            raise CheckpointError(f"{path} is another trial than the one in {folder.file}; make the ensemble again")
        found.append(Part(run, member.weight / len(member.runs), member.temperature))
    return found


def fingerprint(parts: Sequence[Part], requests: Sequence[Request], place: Place, *, deadline: bool = False) -> str:
    """A hash of all that decides the answers: the content of the input and of the members, and the options.

    `deadline`: whether fewer members may answer. The hours are left out, as the first choice is kept.
    """
    members = [
        [
            part.run.manifest.get("backbone"),
            part.run.manifest["files"],
            part.share,
            part.temperature,
        ]
        for part in parts
    ]
    on_gpu = place.device.accelerator != "cpu" and has_gpu_files() and named_gpus() != []
    compute = [on_gpu, None if place.compute is None else place.compute.value]
    asked = [[content_hash(one.input.path), one.input.id_column, repr(one.input.data), one.swap] for one in requests]
    described = json.dumps([__version__, members, asked, compute, CHUNK_ROWS, deadline], sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()


def checked_requests(parts: Sequence[Part], source: Path, target: Path, form: Form) -> list[Request]:
    """A request for each part. The input is read once for each way to read it. Raises as `checked_request` does."""
    read: dict[str, Request] = {}
    keys = [repr((part.run.config.data, part.run.config.head.symmetric)) for part in parts]  # a symmetric head: no swap
    for key, part in zip(keys, parts, strict=True):
        if key not in read:
            read[key] = checked_request(part.run, source, target, form)
    return [read[key] for key in keys]


def answer_together(
    parts: Sequence[Part],
    requests: Sequence[Request],
    place: Place,
    *,
    batch_rows: int = 16,
    done: Done = lambda _rows: None,
    kept: PredictionParts | None = None,
    devices: Devices | None = None,
    calibration: Calibration | None = None,
) -> int:
    """Writes the mean answers, calibrated if asked, as `answer` does for one run. Raises those of `Devices.answers`.

    Runs that share a backbone and read the same tokens answer in one pass; the packs are loaded one after the other.
    Parts of an earlier, interrupted call that are in `kept` are not computed again. Raises CheckpointError if the
    members read different words.
    """
    packs = read_alike([part.run for part in parts], place)
    works = works_of(parts, requests, place, packs, batch_rows)
    answered = [
        _answers(number, [parts[one] for one in places], work, done, kept, devices or ThisDevice())
        for number, (places, work) in enumerate(zip(packs, works, strict=True))
    ]
    if len(answered) == 1:
        return write_answers(requests[0], (_calibrated(one, calibration) for one in answered[0]))
    examples: list[str] = []
    total_NA = torch.zeros(())
    for found, places in zip(answered, packs, strict=True):
        chunks = list(found)
        names = [name for one in chunks for name in one.examples]
        if examples and names != examples:
            raise CheckpointError(
                f"{parts[places[0]].run.path} reads other words than {parts[0].run.path}; make the ensemble again"
            )
        examples = names
        total_NA = total_NA + torch.cat([one.answers_NA for one in chunks])
    return write_answers(requests[0], [_calibrated(Predictions(examples, total_NA), calibration)])


def _calibrated(found: Predictions, calibration: Calibration | None) -> Predictions:
    if calibration is None:
        return found
    return replace(found, answers_NA=torch.from_numpy(calibration(found.answers_NA.numpy())))


def works_of(
    parts: Sequence[Part],
    requests: Sequence[Request],
    place: Place,
    packs: Sequence[Sequence[int]],
    batch_rows: int,
) -> list[Work]:
    """The work of each pack, which holds the places of its runs."""
    found = []
    for places in packs:
        request = requests[places[0]]
        found.append(Work([parts[one].run for one in places], request.input, place, request.swap, batch_rows))
    return found


def chosen_parts(
    parts: Sequence[Part], requests: Sequence[Request], choice: Choice
) -> tuple[list[Part], list[Request]]:
    """The chosen members, whose shares sum to 1 again, and their requests."""
    total = sum(parts[one].share for one in choice.members)
    kept = [replace(parts[one], share=parts[one].share / total) for one in choice.members]
    return kept, [replace(requests[one], swap=requests[one].swap and choice.swap) for one in choice.members]


def rows_left(parts: Sequence[Part], requests: Sequence[Request], place: Place, kept: PredictionParts | None) -> int:
    """The rows that are still to be answered, once for each member and each order."""
    total = 0
    for number, places in enumerate(read_alike([part.run for part in parts], place)):
        request = requests[places[0]]
        there = 0 if kept is None else kept.count(number) * CHUNK_ROWS
        total += max(len(request.input.ids) - there, 0) * len(places) * (1 + request.swap)
    return total


def _answers(
    number: int, members: Sequence[Part], work: Work, done: Done, kept: PredictionParts | None, devices: Devices
) -> Iterator[Predictions]:
    """The sum of the members' answers to each chunk of the file, each by its share and at its temperature."""
    chunk = 0
    for part in [] if kept is None else kept.stored(number):
        yield Predictions(part.examples, part.answers_NA)
        chunk += 1
    if chunk * CHUNK_ROWS >= len(work.input.ids):  # then nothing is loaded
        return
    for answers in devices.answers(replace(work, skip=chunk), done):
        shares = [_share(part, one) for part, one in zip(members, answers, strict=True)]
        found = Predictions(answers[0].examples, shares[0] if len(shares) == 1 else torch.stack(shares).sum(dim=0))
        if kept is not None:
            kept.keep(number, chunk, Stored(found.examples, found.answers_NA))
        yield found
        chunk += 1


def _share(part: Part, found: Predictions) -> torch.Tensor:
    return part.share * _tempered(found.answers_NA, part)


def _tempered(answers_NA: torch.Tensor, part: Part) -> torch.Tensor:
    target = part.run.config.head.target
    if target is Target.number:
        return answers_NA
    return torch.from_numpy(tempered(answers_NA.numpy(), part.temperature, shares=target in SHARES))
