"""The checks of how data become a training, a validation and a test part; past them they are trusted."""

from danube_sweep.config.require import require
from danube_sweep.config.schema import Columns, Data, ExtraRows, Labelled


def validate_parts(data: Data) -> None:
    """Raises ConfigError for a share or a fold out of range, and for two ways to choose the same part."""
    for name in ("validation_fraction", "test_fraction"):
        value = getattr(data, name)
        require(0 <= value < 1, f"data.{name} must be at least 0 and under 1, got {value}")
    own_validation, own_test = data.own_parts
    divided = own_validation is None or (own_test is None and data.test_fraction > 0)
    if data.group_by is not None:
        require(
            divided,
            f"data.group_by={data.group_by.value} groups the rows that are divided, and with "
            f"{own_validation} none are; give data.group_by=null",
        )
    if data.folds is None:
        _one_split(data)
    else:
        _folds(data, data.folds)
    if isinstance(data, ExtraRows):
        _extra(data)
    require(
        data.has_validation_part or not data.train_on_validation,
        "data.train_on_validation=true adds the validation rows to the training rows, and data.validation_fraction=0 "
        "leaves none; give one of the two",
    )


def _extra(data: ExtraRows) -> None:
    for name in ("extra_weight", "extra_temperature"):
        value = getattr(data, name)
        require(value > 0, f"data.{name} must be above 0, got {value:g}")
        require(
            bool(data.extra) or value == 1,
            f"data.{name}={value:g} is for rows of data.extra, and there are none; give data.extra or data.{name}=1",
        )
    twice = [path for path in data.extra if data.extra.count(path) > 1]
    require(not twice, f"data.extra lists {twice[0] if twice else ''} twice; raise data.extra_weight instead")
    grouped = isinstance(data, Columns) and data.group_column is not None and data.group_by is not None
    require(
        not (data.extra and grouped),
        "data.extra is compared with the validation rows by data.group_column or by data.group_by; give one of them",
    )


def _one_split(data: Data) -> None:
    held_out = data.validation_fraction + data.test_fraction
    require(
        held_out < 1,
        f"data.validation_fraction + data.test_fraction must be under 1, got {held_out:g}: no rows would be left "
        "for training",
    )
    require(
        data.fold is None,
        f"data.fold={data.fold} needs the number of folds: give data.folds, like data.folds=5, or data.fold=null",
    )
    require(
        not data.stratified,
        "data.stratified=true deals rows into folds: give data.folds and data.fold, or data.stratified=false",
    )


def _folds(data: Data, folds: int) -> None:
    own = data.own_parts[0]
    require(own is None, f"{own} and data.folds={folds} both choose the validation rows; give one")
    require(folds >= 2, f"data.folds must be at least 2, got {folds}; for one split use data.validation_fraction")
    every = ",".join(map(str, range(folds))) if folds <= 10 else f"range({folds})"
    require(
        data.fold is not None,
        f"data.folds={folds} needs the fold that validates: give data.fold=0, or -m data.fold={every} for all of them",
    )
    assert data.fold is not None
    require(0 <= data.fold < folds, f"data.fold must be from 0 to {folds - 1} with data.folds={folds}, got {data.fold}")
    require(
        not data.stratified or data.labelled is Labelled.rows,
        "data.stratified=true spreads the classes of rows, and those of data=text and data=tokens have none; "
        "give data.stratified=false",
    )
