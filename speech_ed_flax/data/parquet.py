"""Rows of Parquet files, read in batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.extras import require

SUFFIX = ".parquet"


def read_parquet(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """Returns the names of the columns, and what yields the rows.

    Raises:
        ConfigError: PyArrow is missing.
        DataError: it is no Parquet file, or damaged.
        OSError: it cannot be read.
    """
    damage = (require("pyarrow", "parquet").ArrowException, OSError)

    def rows() -> Iterator[dict[str, Any]]:
        try:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
        except damage as error:
            raise _damaged(path, error) from error

    source = open(path, "rb")  # noqa: SIM115 - it is read as long as there are rows
    try:
        file = require("pyarrow.parquet", "parquet").ParquetFile(source)
    except damage as error:
        source.close()
        raise _damaged(path, error) from error
    return file.schema_arrow.names, rows()


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(f"{path}: no Parquet file, or a damaged one: {reason} (write it anew).")
