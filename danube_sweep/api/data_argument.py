"""`data=`: a file's path, or a DataFrame, which becomes a file of the cache that is named by its content."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from danube_sweep import paths
from danube_sweep.errors import ConfigError, DataError
from danube_sweep.storage.files import whole_file
from danube_sweep.sweeping.wandb_file.wandb_parameters import override_text

if TYPE_CHECKING:
    import pandas
    import pyarrow

DataArgument: TypeAlias = "str | os.PathLike[str] | pandas.DataFrame"
PATH = "data.path"


def with_data(words: Sequence[str], data: "DataArgument | None") -> list[str]:
    """The overrides with data.path for `data`. Raises ConfigError if they name a file too, and what `file_of` does."""
    if data is None:
        return list(words)
    if named := [word for word in words if word.lstrip("+").startswith(f"{PATH}=")]:
        raise ConfigError(f"data=: {named[-1]} names the data too; leave one of them out")
    return [*words, f"{PATH}={override_text(PATH, str(file_of(data)))}"]


def file_of(data: "DataArgument") -> Path:
    """The path itself, or a parquet file of the DataFrame: one with the same columns and values is the same file.

    A named index becomes columns; an unnamed one, which numbers the rows, is left out. Raises DataError for a frame
    that no file can hold, and ConfigError for what is neither.
    """
    if isinstance(data, str | os.PathLike):
        return Path(data)
    import pandas

    if not isinstance(data, pandas.DataFrame):
        kind = f"{type(data).__module__}.{type(data).__qualname__}"
        raise ConfigError(f"data= takes a path or a pandas DataFrame, got {kind}; convert it, as by .to_pandas()")
    content = _parquet(data)
    file = paths.cache_dir() / "frames" / f"{hashlib.sha256(content).hexdigest()[:32]}.parquet"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file, "name another folder by DANUBE_SWEEP_CACHE") as temporary:
            temporary.write_bytes(content)
    return file


def _parquet(frame: Any) -> bytes:
    """The file: the same bytes for the same columns and values, whichever of pandas' types holds them."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(_table(frame), sink, store_schema=False)
    return bytes(sink.getvalue())


def _table(frame: Any) -> "pyarrow.Table":
    import pyarrow

    names = [name for name in frame.index.names if name is not None]
    try:
        columns = frame.reset_index(level=names) if names else frame
        if repeated := list(columns.columns[columns.columns.duplicated()]):
            raise DataError(f"data=: the DataFrame has several columns {repeated[0]!r}; rename or drop one")
        if strange := [name for name in columns.columns if not isinstance(name, str)]:
            raise DataError(f"data=: the column {strange[0]!r} has a name that is no string; rename it")
        table = pyarrow.Table.from_pandas(columns, preserve_index=False)
    except DataError:
        raise
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        said = " ".join(str(one) for one in error.args).splitlines()[0]
        raise DataError(f"data=: the DataFrame cannot be written ({said}); give each column one type") from error
    table = table.replace_schema_metadata(None)  # that of pandas holds its version
    plain = [field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type for field in table.schema]
    return table.cast(pyarrow.schema(list(zip(table.column_names, plain, strict=True)))).combine_chunks()
