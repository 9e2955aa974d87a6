"""Rows of a Parquet file, streamed batch by batch through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, MissingExtraError, did_you_mean

__all__ = ["parquet_rows"]

# Enough that a batch costs little, few enough that long texts fit into memory.
_ROWS_A_BATCH = 1024


def parquet_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as plain values.

    Args:
        path: The file.
        columns: The columns to read; empty for all.

    Raises:
        MissingExtraError: If pyarrow is not installed.
        DataError: If the file is not Parquet or lacks a column.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            existing = list(file.schema_arrow.names)
            for column in columns:
                if column not in existing:
                    hint = did_you_mean(column, existing)
                    raise DataError(
                        str(path),
                        f"there is no column {column!r}; {hint}the columns are:"
                        f" {', '.join(existing)}",
                        "Name the right column",
                    )
            # batch by batch: a row group of long texts may be larger than memory
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=list(columns) or None):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            str(path),
            f"cannot be read as Parquet: {str(error).rstrip('. ')}",
            "Check the file, or fetch it again",
        ) from error
