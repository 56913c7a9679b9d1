"""The out-of-fold answers of a refit that kept a model for each fold, as its predictions.parquet."""

from pyarrow import parquet

from danube_sweep.config.schema import Config
from danube_sweep.data.parts import load_undivided
from danube_sweep.data.records import Record
from danube_sweep.results.oof.joined_ensemble import joined_ensemble
from danube_sweep.storage.ensemble_folder import EnsembleFolder
from danube_sweep.storage.files import whole_file


def write_fold_answers(folder: EnsembleFolder) -> str:
    """Writes the answers of the models to the rows of their folds; returns a line on their scores.

    Raises the errors of `joined_ensemble`, DataError for data that are gone or whose ids do not tell rows apart.
    """
    found, _ = joined_ensemble(folder, _records)
    table, metrics = found.predictions, found.metrics
    with whole_file(folder.predictions, "free some space") as temporary:
        parquet.write_table(table, temporary)
    names = dict.fromkeys([next(iter(metrics)), found.config.objective])
    scores = ", ".join(f"{name} {metrics[name]:.4f}" for name in names)
    return f"{folder.predictions}: {table.num_rows} rows out of {found.folds} folds, {scores}"


def _records(config: Config) -> list[Record]:
    return load_undivided(config.data, config.head.target)
