"""Whole tables in memory, by column: of .csv, .tsv and .parquet files, or of a split of a data
set."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile, decode_lines, open_file
from groundup.data.reading.files import read_file
from groundup.data.reading.hub import HubTable

__all__ = ["TABLE_KINDS", "Columns", "read_columns", "read_hub_columns"]

TABLE_KINDS = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Columns:
    """A table in memory: the values of each column, each row's name and place, and the first row of
    a nested value."""

    values: dict[str, list[Any]]
    names: list[str]
    origins: list[str]
    nested: dict[str, int]


@lru_cache(maxsize=3)
def read_columns(files: tuple[tuple[str, DataFile], ...], key: str) -> Columns:
    """Return all rows of the files; kept until three other tables were read.

    Args:
        files: Each with the path of the recipe that it is at or below.
        key: Changes when one of the files does.

    Raises:
        DataError: If a file cannot be read, or has other columns than the first.
    """
    # columns and not rows: a list of dictionaries would take several times the memory
    table = Columns({}, [], [], {})
    several = len({path for path, _ in files}) > 1
    for path, file in files:
        found = _read_delimited(file) if file.kind != ".parquet" else None
        _append(table, file, found or _read_by_row(file))
        count = len(table.values[next(iter(table.values))]) - len(table.names)
        prefix = ""
        if several:  # files of two folders may have the same name
            prefix = f"{path}/"
        table.names.extend(f"{prefix}{file.relative}:{number}" for number in range(1, count + 1))
        table.origins.extend(f"{file.path} row {number}" for number in range(1, count + 1))
    return table


@lru_cache(maxsize=3)
def read_hub_columns(rows: HubTable) -> Columns:
    """Return all rows of a split; of columns of files and other nested values only the first."""
    table = Columns({}, [], [], {})
    for name, kind in rows.columns.items():
        if kind in ("class", "text", "value"):
            table.values[name] = rows.values(name)
        else:
            table.nested[name] = 0
            table.values[name] = [rows.value(name, 0)] * len(rows)
    table.names.extend(f"{rows.split}:{number}" for number in range(1, len(rows) + 1))
    table.origins.extend(rows.origin(number) for number in range(len(rows)))
    return table


def _append(table: Columns, file: DataFile, found: dict[str, list[Any]]) -> None:
    if not table.values:
        table.values.update({name: [] for name in found})
    absent = [name for name in table.values if name not in found]
    extra = [name for name in found if name not in table.values]
    if absent or extra:
        problem = f"has no column {absent[0]!r}" if absent else f"has another column, {extra[0]!r}"
        problem += f"; the first file has {', '.join(table.values)}"
        raise DataError(str(file.path), problem, "Give all files the same columns")
    for name, values in found.items():
        # a nested value is an error only where its column is used: tables often have some to spare
        nested = next(
            (n for n, value in enumerate(values) if isinstance(value, list | dict | bytes)), None
        )
        if nested is not None:
            table.nested.setdefault(name, len(table.values[name]) + nested)
        # a column repeats few values: interned, each is in memory once
        table.values[name].extend(
            sys.intern(value) if type(value) is str else value for value in values
        )


# All rows at once, which is quicker; row by row is left for saying where one is wrong.
def _read_delimited(file: DataFile) -> dict[str, list[Any]] | None:
    """Return the columns of a .csv or .tsv file, or None where a row is wrong."""
    with open_file(file) as handle:
        reader = csv.reader(
            decode_lines(file, handle), delimiter="\t" if file.kind == ".tsv" else ",", strict=True
        )
        try:
            rows = [cells for cells in reader if cells]
        except csv.Error:
            return None
    # two columns of one name would silently become one
    for name, count in Counter(*rows[:1]).items():
        if count > 1:
            problem = f"the header has {count} columns named {name!r}"
            raise DataError(str(file.path), problem, "Give every column a name of its own")
    # also an empty file: reading it by row says what is wrong with it
    if len(rows) < 2 or any(len(cells) != len(rows[0]) for cells in rows):
        return None
    return {name: list(values) for name, *values in zip(*rows, strict=True)}


def _read_by_row(file: DataFile) -> dict[str, list[Any]]:
    """Return the columns of a file read row by row, which says where a row is wrong."""
    found: dict[str, list[Any]] = {}
    for record in read_file(file):
        for name, value in record.fields.items():
            found.setdefault(name, []).append(value)
    return found
