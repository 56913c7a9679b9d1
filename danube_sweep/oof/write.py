"""Out-of-fold predictions as a file."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.oof.joined import PROBABILITY, Predictions
from danube_sweep.trial import sync_file, sync_folder

KINDS = (".parquet", ".csv")


def check_target(target: Path) -> None:
    """Raises ConfigError for a name that says no kind of file, DiskError for a folder that is not there."""
    if target.suffix.lower() not in KINDS:
        raise ConfigError(f"--output {target}: its name must end in {' or '.join(KINDS)}")
    if not target.parent.is_dir():
        raise DiskError(f"--output {target}: there is no folder {target.parent}; make it or choose another place")


def write_predictions(found: Predictions, target: Path) -> None:
    """Writes id, label and a probability per class, in language modelling id, loss and weight; whole or not at all.

    Raises DiskError.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    table = pa.table(_columns(found))
    try:
        if target.suffix.lower() == ".csv":
            csv.write_csv(table, temporary, csv.WriteOptions(quoting_style="needed"))
        else:
            parquet.write_table(table, temporary)
        sync_file(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise DiskError(
            f"{target} cannot be written: {error.strerror or error}; choose another place by --output"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _columns(found: Predictions) -> dict[str, Any]:
    if found.probabilities_NC is None:
        return {"id": found.ids, "loss": found.losses_N, "weight": found.weights_N}
    probabilities = {f"{PROBABILITY}{name}": found.probabilities_NC[:, k] for k, name in enumerate(found.classes)}
    return {"id": found.ids, "label": found.labels, **probabilities}
