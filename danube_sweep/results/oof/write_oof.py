"""Out-of-fold predictions as a file."""

from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from danube_sweep.config.neutral_text import neutral_cell
from danube_sweep.errors import ConfigError, DiskError
from danube_sweep.storage.files import whole_file
from danube_sweep.storage.predictions import ID, LOSS, is_answer

KINDS = (".parquet", ".csv")


def check_target(target: Path) -> None:
    """Raises ConfigError for a name without a known ending, DiskError for a folder that does not exist."""
    if target.suffix.lower() not in KINDS:
        raise ConfigError(f"--output {target}: its name must end in {' or '.join(KINDS)}")
    if not target.parent.is_dir():
        raise DiskError(f"--output {target}: there is no folder {target.parent}; make it or choose another place")


def write_predictions(found: "pa.Table", target: Path) -> None:
    """Writes id, labels and answers, in language modelling id, loss and weight; whole or not at all.

    Raises DiskError.
    """
    columns = [name for name in found.column_names if name != LOSS or not any(map(is_answer, found.column_names))]
    table = found.select(columns)
    with whole_file(target, "choose another place by --output") as temporary:
        if target.suffix.lower() == ".csv":
            csv.write_csv(_neutral(table), temporary, csv.WriteOptions(quoting_style="needed"))
        else:
            parquet.write_table(table, temporary)


def _neutral(table: "pa.Table") -> "pa.Table":
    """The table with names and texts as a csv may hold them."""
    for place, name in enumerate(table.column_names):
        if name != ID and pa.types.is_string(table.schema.types[place]):
            texts = [neutral_cell(text) for text in table[name].to_pylist()]
            table = table.set_column(place, name, pa.array(texts, pa.string()))
    return table.rename_columns([neutral_cell(name) for name in table.column_names])
