"""Whole tables in memory, by column: of .csv, .tsv and .parquet files, or of a split of a data
set."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.files import Cells, check_header, is_header, read_file
from groundup.data.reading.hub import HubTable
from groundup.data.reading.separator import choose_separator
from groundup.data.reading.split_column import split_of

__all__ = ["TABLE_KINDS", "Columns", "divide_columns", "read_columns", "read_hub_columns"]

TABLE_KINDS = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Columns:
    """A table in memory: the values of each column, each row's name and place, the first row of a
    nested value, what was met besides rows, and what was between cells."""

    values: dict[str, list[Any]]
    names: list[str]
    origins: list[str]
    nested: dict[str, int]
    met: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)


@lru_cache(maxsize=3)
def read_columns(
    files: tuple[tuple[str, DataFile], ...], key: str, separator: str | None = None
) -> Columns:
    """Return all rows of the files; kept until three other tables were read.

    Args:
        files: Each with the path of the recipe that it is at or below.
        key: Changes when one of the files does.
        separator: The character between cells of .csv and .tsv; None: see ``choose_separator``.

    Raises:
        DataError: If a file cannot be read, or has other columns than the first.
    """
    # columns and not rows: a list of dictionaries would take several times the memory
    table = Columns({}, [], [], {})
    several = len({path for path, _ in files}) > 1
    for path, file in files:
        found = None
        if file.kind != ".parquet":
            found = _read_delimited(file, separator, table.separators)
        _append(table, file, found or _read_by_row(file, separator))
        table.met.update(file.notes)
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


def divide_columns(tables: Mapping[Split, Columns], column: str) -> dict[Split, Columns]:
    """Return the tables of the splits, each with the rows of training that a column says are of it,
    and without the column."""
    # a row at a time: several splits share a file, and its columns are read whole
    whole = tables["train"]
    splits = [split_of(column, value) for value in whole.values[column]]
    found: dict[Split, Columns] = {}
    for split in dict.fromkeys(each for each in splits if each is not None):
        kept = [number for number, each in enumerate(splits) if each == split]
        places = {number: place for place, number in enumerate(kept)}
        own = Columns(
            {name: [values[n] for n in kept] for name, values in whole.values.items()},
            [whole.names[n] for n in kept],
            [whole.origins[n] for n in kept],
            {name: places[n] for name, n in whole.nested.items() if n in places},
            whole.met if split == "train" else Counter(),
            whole.separators,
        )
        if split != "train" and split in tables:
            for name, values in tables[split].values.items():
                own.values.setdefault(name, []).extend(values)
            own.names.extend(tables[split].names)
            own.origins.extend(tables[split].origins)
        found[split] = own
    for own in found.values():
        own.values.pop(column, None)
    return found


def _append(table: Columns, file: DataFile, found: dict[str, list[Any]]) -> None:
    if not table.values:
        table.values.update({name: [] for name in found})
    absent = [name for name in table.values if name not in found]
    extra = [name for name in found if name not in table.values]
    if absent or extra:
        problem = f"has no column {absent[0]!r}" if absent else f"has another column, {extra[0]!r}"
        first = table.origins[0].rpartition(" row ")[0]
        problem += f"; the first file, {first}, has {', '.join(table.values)}"
        remedy = "Give all files the same columns, or name one to read"
        raise DataError(str(file.path), problem, f"{remedy}, such as data.path: {file.path}")
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
def _read_delimited(
    file: DataFile, given: str | None, separators: set[str]
) -> dict[str, list[Any]] | None:
    """Return the columns of a .csv or .tsv file, or None where a row is wrong."""
    file.notes.clear()
    with open_file(file) as handle:
        separator, lines = choose_separator(file, decode_lines(file, handle), given)
        separators.add(separator)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            every = list(reader)
        except csv.Error:
            return None
    rows = [cells for cells in every if cells]
    file.notes["empty lines"] += len(every) - len(rows)
    # also an empty file: reading it by row says what is wrong with it
    if len(rows) < 2 or any(len(cells) != len(rows[0]) for cells in rows):
        return None
    header = check_header(rows[0], str(file.path))
    last = header[-1]
    alike = [number for number, cells in enumerate(rows) if cells[-1] == last]
    again = [number for number in alike if number and is_header(rows[number], header)]
    file.notes["header lines again"] += len(again)
    for number in reversed(again):
        del rows[number]
    return dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))


def _read_by_row(file: DataFile, separator: str | None) -> dict[str, list[Any]]:
    """Return the columns of a file read row by row, which says where a row is wrong."""
    found: dict[str, list[Any]] = {}
    for record in read_file(file, cells=Cells(separator)):
        for name, value in record.fields.items():
            found.setdefault(name, []).append(value)
    return found
