"""The files of a night, read as its trials and its predictions will: a mistake in a row ends it before it begins."""

from pathlib import Path

from danube_sweep.config.schema import Config
from danube_sweep.data.parts import load_parts
from danube_sweep.inference.predict_input import check_input
from danube_sweep.tonight.asked import Asked

TEST = "--test"


def check_whole_files(asked: Asked, config: Config) -> None:
    """Reads every row of the training file and of the test file; `config` is one of the night's trials.

    Raises DataError, with the lines, for rows that cannot train or be predicted. Raises ConfigError for a sample
    submission with other columns than the answers, and DataError for one with other ids than the test file.
    """
    classes = load_parts(config.data, config.head.target).classes
    path = Path(asked.test).expanduser()
    if asked.like is None:
        check_input(config.data, path, field=TEST)
        return
    from danube_sweep.inference.prediction_table import Form, table_of
    from danube_sweep.inference.sample_submission import read_sample

    sample = read_sample(Path(asked.like))
    given = check_input(config.data, path, sample=sample.columns, field=TEST)
    table, _ = table_of(config, classes, form=Form(like=sample.path), id_column=given.id_column)
    sample.arranged(table, given)
