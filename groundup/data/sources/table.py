"""Tables: rows of .csv, .tsv and .parquet files, or of a Hugging Face data set, with columns to
predict."""

from __future__ import annotations

import csv
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

from pydantic import model_validator

from groundup.core.contracts.data import DataContext, DataSource, Stream
from groundup.core.errors import DataError, did_you_mean
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.compressed import DataFile, decoded_lines, opened
from groundup.data.reading.files import fingerprint, list_files, read_records
from groundup.data.reading.hub import HubTable
from groundup.data.reading.hub_splits import HubOrigin, problem_with_dataset, refuse_idle
from groundup.data.splitting.hash_split import split_of
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.table_values import Row, as_category, as_date, as_number, is_missing, kind_of

__all__ = ["TableSource"]

_KINDS = (".csv", ".tsv", ".parquet")
_LABELS_LISTED = 50
_DRAWN: dict[str, tuple[Any, ...]] = {"validation_path": (None,), "time_column": (None,)}


@dataclass(frozen=True)
class _Columns:
    """A table in memory: the values of each column, each row's name and place, and the first row of
    a nested value."""

    values: dict[str, list[Any]]
    names: list[str]
    origins: list[str]
    nested: dict[str, int]


@data("table")
class TableSource(DataSource):
    """Rows of files with named columns. Which kind of values a column holds is found by the
    processor ``table``."""

    path: str | list[str] | None = setting(
        None, "A .csv, .tsv or .parquet file, a folder of them, or a list of these"
    )
    dataset: str | None = setting(
        None, "Hugging Face data set, or a folder with a copy of one, instead of path"
    )
    subset: str | None = setting(None, "Configuration of the data set")
    revision: str | None = setting(None, "Branch, tag or commit of the data set")
    dataset_split: str = setting(
        "train", "Split of the data set that is learned from, or a part such as train[:80%]"
    )
    validation_split: str | None = setting(
        None, "Split that is held out; silent: its own, or a share of the other"
    )
    test_split: str | None = setting(
        None, "Split that is only judged; silent: the one called test, if it has targets"
    )
    target: str | tuple[str, ...] = setting(..., "The column to predict, or several")
    columns: tuple[str, ...] = setting((), "Columns to predict from; empty: all but the target")
    ignore: tuple[str, ...] = setting(
        (), "Columns to leave out, such as one that gives the target away"
    )
    validation_path: str | list[str] | None = setting(
        None, "Files held out as they are, instead of a fraction"
    )
    validation_fraction: float = setting(
        0.1, "Share of the rows held out", gt=0, lt=1, applies_when={"validation_path": (None,)}
    )
    group_column: str | None = setting(
        None,
        "Rows with the same value of it, such as a user, stay on one side of the split",
        applies_when=_DRAWN,
    )
    time_column: str | None = setting(
        None,
        "Numbers or dates: the latest rows are held out",
        applies_when={"validation_path": (None,)},
    )
    split_seed: int = setting(0, "Another seed holds out other rows", ge=0, applies_when=_DRAWN)
    licence: str = setting("", "Licence of the data, for the data card")

    @model_validator(mode="after")
    def _consistent(self) -> TableSource:
        if problem := problem_with_dataset(self, (), ("validation_path",)):
            raise ValueError(problem)
        if not self.targets:
            raise ValueError("target is an empty list. Name the column to predict")
        for name in self.targets:
            if name in self.columns:
                raise ValueError(
                    f"columns names the target {name!r}, which would give it away. Remove it there"
                )
        if self.columns and self.ignore:
            raise ValueError("ignore has no effect with columns. Remove one of them")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are: a test split where the data set has one of its own."""
        return (
            ("train", "validation", "test") if "test" in self._tables() else ("train", "validation")
        )

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the rows of a split in the order of the files: inputs by column, and the target's
        raw value.

        Several targets are a dictionary of column -> raw value.

        Raises:
            DataError: If a file cannot be read, or lacks a column that the settings name.
        """
        table = self._table(split)
        inputs = {name: table.values[name] for name in self._inputs(table, split)}
        wanted = {name: table.values[name] for name in self.targets}
        only = wanted[self.targets[0]]
        single = isinstance(self.target, str)
        found = []
        for n in self._rows(table, split):
            target = only[n] if single else {name: values[n] for name, values in wanted.items()}
            found.append(
                Example(table.names[n], Row(inputs, n, table.origins[n]), target, table.origins[n])
            )
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the columns of the training split with kind, missing share and distinct values;
        targets; splits."""
        table, rows = self._table("train"), self._rows(self._table("train"), "train")
        described = {
            name: _describe([table.values[name][n] for n in rows])
            for name in self._inputs(table, "train")
        }
        splits: dict[Any, Any] = {
            split: {
                "examples": len(rows if split == "train" else self._rows(self._table(split), split))
            }
            for split in self.splits()
        }
        origin = HubOrigin.of(self)
        files = {"source": ", ".join(_as_list(self.path)), "licence": self.licence or "not stated"}
        return {
            **(files if origin is None else origin.about(self._tables(), self.licence)),
            "columns": described,
            "constant_columns": [
                name for name, about in described.items() if about["distinct"] < 2
            ],
            "targets": {
                name: _describe_target([table.values[name][n] for n in rows])
                for name in self.targets
            },
            **splits,
        }

    def _tables(self) -> dict[Split, HubTable]:
        """Return the splits of the data set; none where files are read."""
        origin = HubOrigin.of(self)
        if origin is None:
            return {}
        refuse_idle(
            self, ("validation_fraction", "group_column", "time_column", "split_seed"), origin
        )
        return origin.tables(self.targets[0])

    def _table(self, split: Split) -> _Columns:
        if tables := self._tables():
            return _read_hub(tables.get(split, tables["train"]))
        path = (
            self.path if split == "train" or self.validation_path is None else self.validation_path
        )
        return _read(tuple(_as_list(path)), fingerprint(_as_list(path), _KINDS))

    def _inputs(self, table: _Columns, split: Split) -> list[str]:
        named: dict[str, tuple[str | None, ...]] = {
            "target": self.targets,
            "columns": self.columns,
            "ignore": self.ignore,
        }
        named |= {"group_column": (self.group_column,), "time_column": (self.time_column,)}
        for setting_name, columns in named.items():
            for name in columns:
                if name is not None and name not in table.values:
                    raise _missing_column(self._where(split), name, table, f"data.{setting_name}")
        left_out = {*self.targets, *self.ignore}
        found = list(self.columns) or [name for name in table.values if name not in left_out]
        if not found:
            raise DataError(
                self._where("train"),
                "no column is left to predict from",
                "Name fewer under data.ignore",
            )
        for name in (*found, *self.targets):
            if name in table.nested:
                number = table.nested[name]
                holds = (
                    f"{type(table.values[name][number]).__name__}"
                    f" {str(table.values[name][number])[:40]}"
                )
                problem = f"column {name!r} holds {holds}; allowed: numbers, text, dates"
                raise DataError(
                    table.origins[number],
                    problem,
                    "Name it under data.ignore, or make columns of its parts",
                )
        return found

    def _where(self, split: Split) -> str:
        if self.dataset is not None:
            return f"data set {self.dataset} ({split})"
        return ", ".join(
            _as_list(
                self.path if split == "train" or not self.validation_path else self.validation_path
            )
        )

    def _rows(self, table: _Columns, split: Split) -> list[int]:
        every = range(len(table.names))
        if self.validation_path is not None or split == "test" or "validation" in self._tables():
            return list(every)
        self._inputs(table, split)  # says which columns are missing
        if self.time_column is not None:
            held_out = self._latest(table)
        else:
            groups = table.names if self.group_column is None else self._groups(table)
            sides = {
                group: split_of(group, self.validation_fraction, self.split_seed)
                for group in set(groups)
            }
            held_out = [sides[group] == "validation" for group in groups]
        found = list(
            compress(every, held_out if split == "validation" else (not side for side in held_out))
        )
        if not found:
            problem = (
                f"nothing is left for {split} (validation_fraction {self.validation_fraction})"
            )
            raise DataError(
                self._where("train"), problem, "Give more rows, or change data.validation_fraction"
            )
        return found

    def _groups(self, table: _Columns) -> list[str]:
        assert self.group_column is not None
        found = [as_category(value) for value in table.values[self.group_column]]
        if "" in found:
            where = table.origins[found.index("")]
            raise DataError(
                where, f"group_column {self.group_column!r} is empty", "Give each row its group"
            )
        return found

    def _latest(self, table: _Columns) -> list[bool]:
        """Return which rows are as late as the first of the last ``validation_fraction`` of them,
        or later."""
        assert self.time_column is not None
        times = []
        for origin, value in zip(table.origins, table.values[self.time_column], strict=True):
            number = as_number(value)
            time = as_date(value) if number is None else number
            if time is None or math.isnan(time):
                problem = (
                    f"time_column {self.time_column!r} holds {value!r}; allowed: a number, or a"
                    " date in ISO 8601"
                )
                raise DataError(origin, problem, "Correct it, or name another column")
            times.append(time)
        first = sorted(times)[-max(1, round(len(times) * self.validation_fraction))]
        return [time >= first for time in times]


@lru_cache(maxsize=2)
def _read(paths: tuple[str, ...], key: str) -> _Columns:
    """Return all rows of the files; kept until two other tables were read, or a file changes
    (``key``)."""
    table = _Columns({}, [], [], {})
    for path in paths:
        for file in list_files(path, _KINDS):
            found = _delimited(file) if file.kind != ".parquet" else None
            _append(table, file, _by_row(file) if found is None else found)
            count = len(table.values[next(iter(table.values))]) - len(table.names)
            prefix = f"{path}/" if len(paths) > 1 else ""
            table.names.extend(
                f"{prefix}{file.relative}:{number}" for number in range(1, count + 1)
            )
            table.origins.extend(f"{file.path} row {number}" for number in range(1, count + 1))
    return table


@lru_cache(maxsize=3)
def _read_hub(rows: HubTable) -> _Columns:
    """Return all rows of a split; of columns of files and other nested values only the first."""
    table = _Columns({}, [], [], {})
    for name, kind in rows.columns.items():
        if kind in ("class", "text", "value"):
            table.values[name] = rows.values(name)
        else:
            table.nested[name] = 0
            table.values[name] = [rows.value(name, 0)] * len(rows)
    table.names.extend(f"{rows.split}:{number}" for number in range(1, len(rows) + 1))
    table.origins.extend(rows.origin(number) for number in range(len(rows)))
    return table


def _append(table: _Columns, file: DataFile, found: dict[str, list[Any]]) -> None:
    if not table.values:
        table.values.update({name: [] for name in found})
    absent, extra = (
        [n for n in one if n not in other]
        for one, other in ((table.values, found), (found, table.values))
    )
    if absent or extra:
        problem = f"has no column {absent[0]!r}" if absent else f"has another column, {extra[0]!r}"
        raise DataError(
            str(file.path),
            f"{problem}; the first file has {', '.join(table.values)}",
            "Give each alike",
        )
    for name, values in found.items():
        nested = next(
            (n for n, value in enumerate(values) if isinstance(value, list | dict | bytes)), None
        )
        if nested is not None:
            table.nested.setdefault(name, len(table.values[name]) + nested)
        table.values[name].extend(
            sys.intern(value) if type(value) is str else value for value in values
        )


def _delimited(file: DataFile) -> dict[str, list[Any]] | None:
    """Return the columns of a .csv or .tsv file, or None where a row is amiss."""
    with opened(file) as handle:
        reader = csv.reader(
            decoded_lines(file, handle), delimiter="\t" if file.kind == ".tsv" else ",", strict=True
        )
        try:
            rows = [cells for cells in reader if cells]
        except csv.Error:
            return None
    for name, count in Counter(rows[0] if rows else []).items():
        if count > 1:
            problem = f"the header has {count} columns named {name!r}"
            raise DataError(str(file.path), problem, "Give every column a name of its own")
    if len(rows) < 2 or any(len(cells) != len(rows[0]) for cells in rows):
        return None
    return {name: list(values) for name, *values in zip(*rows, strict=True)}


def _by_row(file: DataFile) -> dict[str, list[Any]]:
    """Return the columns of a file read row by row, which says where a row is amiss."""
    found: dict[str, list[Any]] = {}
    for record in read_records(file.path, kinds=_KINDS):
        for name, value in record.fields.items():
            found.setdefault(name, []).append(value)
    return found


def _missing_column(where: str, name: str, table: _Columns, setting_name: str) -> DataError:
    hint, known = did_you_mean(name, table.values), ", ".join(table.values)
    return DataError(
        where, f"there is no column {name!r}; {hint}columns: {known}", f"Correct {setting_name}"
    )


def _is_gone(value: Any) -> bool:
    """Whether a value of a column of numbers is missing; one that is infinite is taken as missing
    too."""
    return is_missing(value) or math.isnan(as_number(value) or 0.0)


def _describe(values: Sequence[Any]) -> dict[str, Any]:
    counts = Counter(values)
    kind = kind_of(counts)
    gone = sum(
        n
        for v, n in counts.items()
        if (as_category(v) == "" if kind == "categorical" else _is_gone(v))
    )
    distinct = sum(1 for v in counts if not is_missing(v))
    return {"kind": kind, "missing": gone / len(values), "distinct": distinct}


def _describe_target(values: Sequence[Any]) -> dict[str, Any]:
    about, counts = _describe(values), Counter(values)
    if about["kind"] == "numeric" and len(counts) > 2:
        numbers = [
            n
            for n in (as_number(v) for v in counts.elements())
            if n is not None and not math.isnan(n)
        ]
        return about | {
            "mean": sum(numbers) / len(numbers),
            "lowest": min(numbers),
            "highest": max(numbers),
        }
    return about | {
        "labels": {str(label): count for label, count in counts.most_common(_LABELS_LISTED)}
    }


def _as_list(path: str | list[str] | None) -> list[str]:
    return [] if path is None else [path] if isinstance(path, str) else list(path)
