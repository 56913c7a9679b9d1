"""A finished run on its test part, whose rows took no part in the selection."""

from pathlib import Path

from danube_sweep.config.schema import Device
from danube_sweep.data.encoded import Encoded
from danube_sweep.errors import CheckpointError
from danube_sweep.inference.predict import Trained, load_run
from danube_sweep.planner.what_fits import with_micro_batch
from danube_sweep.storage.files import read_json
from danube_sweep.storage.run_folder import RunFolder
from danube_sweep.terminal.screen import Terminal
from danube_sweep.training.evaluate import Evaluation, Hidden, evaluate_together, evaluation_batches
from danube_sweep.training.pack.stored_prefix import StoredStates
from danube_sweep.training.prepare import prepare


def score_test(path: Path, device: Device) -> dict[str, float]:
    """The metrics of a finished run on its test part. Raises the errors of `evaluate_test`."""
    return evaluate_test(path, device).metrics


def evaluate_test(path: Path, device: Device) -> Evaluation:
    """The evaluation of a finished run on its test part, row by row.

    Raises CheckpointError if the run is unfinished or damaged, if its data have changed, or if they have no test part.
    """
    trained = load_run(path, device)
    config = trained.config
    folder = RunFolder(path)
    if folder.hash_of(config) != read_json(folder.environment)["trial"]:
        raise CheckpointError(f"{path}: its data or model files were changed since the run; put back what they were")
    prepared = prepare(config)
    if "test" not in prepared.parts:
        raise CheckpointError(f"{path}: its data have no test part; give data.test_path or data.test_fraction")
    trained_with = with_micro_batch(config, folder.micro_batch(config))
    part = prepared.parts["test"]
    (found,) = evaluate_together(
        trained.backbone,
        [trained.head],
        part,
        hidden=_states_of(trained, part),
        batches=evaluation_batches(trained_with, part, prepared.pad_id, trained.backbone),
    )
    return found


def _states_of(trained: Trained, part: Encoded) -> Hidden:
    # Kept ones are read, and written where they lack, as in training.
    if trained.prefix is None:
        return trained.states
    stored, terminal = StoredStates(trained.backbone, trained.prefix), Terminal()
    stored.say = terminal.note
    return lambda batch: trained.states(batch, stored.batch(part, batch, trained.from_block))
