"""Rows of a `datasets` data set, on the hub or in a folder, as `read_rows` gives those of a file."""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from danube_sweep.config.facts.hub_commits import commit, is_folder
from danube_sweep.config.fingerprints import file_digest
from danube_sweep.config.require import require
from danube_sweep.config.schema import TableColumns, Target, setting
from danube_sweep.data.kind import DataKind
from danube_sweep.data.parts import some
from danube_sweep.data.read_files import Row, check_columns
from danube_sweep.data.records import LabelledRows, Parts, Record
from danube_sweep.data.split import split as split_rows
from danube_sweep.data.table_columns import check_classes, load_table, read_table
from danube_sweep.errors import ConfigError, DanubeSweepError, DataError, DiskError

if TYPE_CHECKING:
    from datasets import Dataset

Reader = Callable[[str | Path, Sequence[str], str], Iterator[Row]]


@dataclass
class HubData(TableColumns, DataKind):
    """One text and one label a row, from a data set of the Hugging Face hub or a folder of its files."""

    part_fields: ClassVar[tuple[str, str]] = ("validation_split", "test_split")

    path: str = setting("hub name of the data set (OWNER/NAME), or a folder", path="folder")
    subset: str | None = setting("subset (configuration) of the data set; null for its default", None)
    revision: str | None = setting("branch, tag or commit; null for the main branch. The commit is stored", None)
    split: str = setting("split to train on", "train")
    validation_split: str | None = setting("split to choose trials on; null cuts it from the training split", None)
    test_split: str | None = setting("test split; null for none or test_fraction", None)

    def check(self) -> None:
        super().check()
        require(
            self.validation_split is None or self.validation_split != self.split,
            f"data.validation_split={self.validation_split} is data.split: a model is not validated on rows that it "
            "trains on; give another split, or data.validation_split=null",
        )
        require(
            self.revision is None or not is_folder(self.path),
            f"data.revision={self.revision}: a folder has no revisions; give data.revision=null",
        )

    def settle(self) -> None:
        """Keeps the commit, so that the trial keeps its data when the branch moves on.

        The trial's hash reports missing sources, as for files.
        """
        if not is_folder(self.path):
            with suppress(DataError):
                self.revision = commit(self.path, self.revision)

    def source_meaning(self) -> dict[str, Any]:
        """The content of a folder's files, or the name on the hub with its commit."""
        if not is_folder(self.path):
            return {"path": f"{self.path}@{commit(self.path, self.revision)}"}
        folder = Path(self.path).expanduser()
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        names = [file.relative_to(folder).as_posix() for file in files]
        shown = {name: file for name, file in zip(names, files, strict=True) if not re.search(r"(^|/)\.", name)}
        return {"path": {name: file_digest(file) for name, file in shown.items()}}

    def load(self, target: Target) -> Parts:
        def load(split: str, field: str, classes: list[str] | None) -> LabelledRows:
            return load_table(split, self, target, classes=classes, field=field, read=reader(self, split))

        records, classes, notes = load(self.split, "data.split", self.classes)
        if target is not Target.number:
            check_classes(f"data.path={self.path}", classes, target, ordered_by_config=self.classes is not None)
        train, validation, test = split_rows(some(records, "data.split"), self, classes)
        if self.validation_split is not None:
            validation, _, more = load(self.validation_split, "data.validation_split", classes)
            notes = [*notes, *more]
        if self.test_split is not None:
            test, _, more = load(self.test_split, "data.test_split", classes)
            notes = [*notes, *more]
        return Parts(train, validation, test, classes, notes=notes)

    def read_unlabelled(self, path: str | Path, field: str) -> Iterator[Record]:
        return read_table(path, self, field)


def reader(config: HubData, split: str) -> Reader:
    """Reads the rows of a split that has at least some columns; a class is its name, an unlabelled row null.

    Reading raises DataError when the data set or a column is not there or cannot be read, ConfigError without the
    package `datasets`, DiskError when there is no room for its cache.
    """

    def read(path: str | Path, columns: Sequence[str], field: str) -> Iterator[Row]:
        rows = _load(config, split)
        check_columns(rows.column_names, columns, f"{field}={path}")
        rows = rows.select_columns(list(columns))
        for number, row in enumerate(rows, 1):
            yield number, {name: _named(rows.features[name], value) for name, value in row.items()}

    return read


def _named(feature: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_named(getattr(feature, "feature", None), item) for item in value]
    if isinstance(value, int) and hasattr(feature, "int2str"):
        return None if value < 0 else feature.int2str(value)
    return value


def _load(config: HubData, split: str) -> "Dataset":
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("data=hub needs the package datasets: pip install 'danube_sweep[hub]'") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    where = f"data.path={config.path}, split {split}"
    try:
        return _saved(config, split) if _is_saved(config) else _prepared(config).as_dataset(split)
    except DanubeSweepError:
        raise
    except ConnectionError as error:
        raise DataError(
            f"{where}: the hub cannot be reached and the cache has no copy; load it once with a network, or give a "
            "folder by data.path"
        ) from error
    except (OSError, ValueError, TypeError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if errno.ENOSPC in (getattr(one, "errno", None) for one in (error, error.__cause__)):
            raise DiskError(f"{where}: no space left for its cache; free some space or set HF_HOME") from error
        said = " ".join(str(error.__cause__ or error).split())[:300]
        raise DataError(f"{where}: cannot be read ({said}); check data.path, data.subset and the split") from error


def _prepared(config: HubData) -> Any:
    """The builder of a data set whose rows are in the cache."""
    import datasets

    revision = None if is_folder(config.path) else commit(config.path, config.revision)
    builder = datasets.load_dataset_builder(config.path, config.subset, revision=revision)
    if revision is not None:
        _check_cached(builder, config, revision)
    builder.download_and_prepare()
    return builder


def _is_saved(config: HubData) -> bool:
    folder = Path(config.path).expanduser()
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved(config: HubData, split: str) -> "Dataset":
    """A split of the output of `save_to_disk`; a single data set is its training split."""
    import datasets

    found = datasets.load_from_disk(str(Path(config.path).expanduser()))
    splits = found if isinstance(found, datasets.DatasetDict) else {"train": found}
    if config.subset is not None:
        raise ValueError("the output of save_to_disk has no subsets")
    if split not in splits:
        raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
    return splits[split]


def _check_cached(builder: Any, config: HubData, revision: str) -> None:
    """Without a network `datasets` takes the newest copy it has, whatever was asked for: that must be the same."""
    if revision not in Path(builder.cache_dir).parts:
        raise DataError(
            f"data.path={config.path}: the hub cannot be reached and the cache has no copy of revision {revision}; "
            "load it once with a network, or give data.revision"
        )
    if config.subset is None and type(builder).__name__ == "Cache" and builder.config.name != "default":
        raise DataError(
            f"data.path={config.path}: the hub cannot be reached to look up the default subset, and the cache has "
            f"{builder.config.name}; give data.subset"
        )


OPTION = HubData
