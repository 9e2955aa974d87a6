"""Rows of a Parquet file, streamed batch by batch through pyarrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError, MissingExtraError, did_you_mean

__all__ = ["parquet_rows"]

# Enough that a batch costs little, few enough that long texts fit into memory.
_ROWS_A_BATCH = 1024
_POINTER = 1024  # bytes; git-lfs keeps a few lines in place of a file


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
            _refuse_twice(file.schema_arrow, str(path))
            for column in columns:
                if column not in existing:
                    hint = did_you_mean(column, existing)
                    raise DataError(
                        str(path),
                        f"there is no column {column!r}; {hint}the columns are:"
                        f" {', '.join(existing)}",
                        "Name the right column",
                    )
            kinds = [field.type for field in file.schema_arrow]
            nested = any(pyarrow.types.is_nested(kind) for kind in kinds)
            # batch by batch: a row group of long texts may be larger than memory
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=list(columns) or None):
                rows = batch.to_pylist()
                yield from map(_without_nulls, rows) if nested else rows
    except (pyarrow.ArrowException, OSError) as error:
        remedy = "Check the file, or fetch it again"
        if path.stat().st_size < _POINTER and b"git-lfs" in path.read_bytes():
            remedy = "It is git-lfs's pointer to the file: git lfs pull"
        with path.open("rb") as handle:
            head = handle.read(6)
        if head == b"ARROW1":
            remedy = "It is an Arrow (Feather) file: convert it to Parquet, such as with pandas"
        elif head.startswith(b"<"):
            remedy = "It is a web page, perhaps an error in place of the file: fetch it again"
        raise DataError(
            str(path), f"cannot be read as Parquet: {str(error).rstrip('. ')}", remedy
        ) from error


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose nested values have no keys without a value: Parquet gives each the keys
    of all, such as the arguments of every tool to each call."""
    return {name: _clean(value) for name, value in row.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items() if each is not None}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_clean(each) for each in value]
    return value


def _refuse_twice(schema: Any, where: str) -> None:
    """Raise an error for columns, or parts of a nested one, that share a name: one would be lost.

    Args:
        schema: The file's.
        where: What to call it in messages.

    Raises:
        DataError: Naming them.
    """
    inside = [list(schema)]
    while inside:
        each = inside.pop()
        kinds = [field.type for field in each if field.type.num_fields]
        inside += [[kind.field(number) for number in range(kind.num_fields)] for kind in kinds]
        for name, count in Counter(field.name for field in each).items():
            if count > 1:
                raise DataError(
                    where,
                    f"there are {count} columns named {name!r}",
                    "Give every column a name of its own",
                )
