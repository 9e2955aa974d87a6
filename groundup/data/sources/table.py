"""Tables: rows of .csv, .tsv and .parquet files, or of a Hugging Face data set, with columns to
predict."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream, Unlabelled
from groundup.core.errors import DataError, did_you_mean
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.columns import (
    TABLE_KINDS,
    Columns,
    divide_columns,
    read_columns,
    read_hub_columns,
)
from groundup.data.reading.files import Cells, fingerprint
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.listing import ROW_KINDS, list_files
from groundup.data.reading.location import Origin
from groundup.data.reading.placement import group_of, times_of
from groundup.data.reading.separator import suggest_separator
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.reading.unlabelled import list_and_say, read_rows
from groundup.data.splitting.drawing import say_once, split_examples
from groundup.data.splitting.held_out import warn_of_repeated
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.column_format import Format
from groundup.media.find_format import look_at
from groundup.media.table_values import Kind, Row, as_category, as_number

__all__ = ["TableSource"]

# in the card; a column of names would fill pages
_LABELS_LISTED = 50


@data("table")
class TableSource(Source):
    """Rows of files with named columns. Which kind of values a column holds is found by the
    processor ``table``."""

    reads_in_order = False
    for_files = ("separator",)
    has_labels = True
    has_columns = True

    target: str | tuple[str, ...] = setting(..., "the column to predict, or several")
    columns: tuple[str, ...] = setting((), "columns to predict from; empty: all but the target")
    ignore: tuple[str, ...] = setting(
        (), "columns to leave out, such as one that gives the target away"
    )
    separator: str | None = setting(
        None,
        "character between cells of .csv and .tsv; silent: a comma, a tab in .tsv, or what the"
        " header makes certain",
        min_length=1,
        max_length=1,
    )

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if not self.targets:
            return "target is an empty list. Name the column to predict"
        for name in self.targets:
            if self.targets.count(name) > 1:
                return f"target names {name!r} twice. Name it once"
            if name in self.columns:
                given_away = f"columns names the target {name!r}, which would give it away"
                return f"{given_away}. Remove it there"
        if self.columns and self.ignore:
            return "ignore has no effect with columns. Remove one of them"
        if self.stratify and len(self.targets) > 1:
            return "stratify has no effect with several targets. Remove it, or name one target"
        return None

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are, named or drawn."""
        return self.rule.splits(self._read_tables())

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the rows of a split in the order of the files: inputs by column, and the target's
        raw value.

        Several targets are a dictionary of column -> raw value.

        Raises:
            DataError: If a file cannot be read, or lacks a column that the settings name.
        """
        table, rows = self._rows_of(split)
        inputs = {name: table.values[name] for name in self._input_columns(table)}
        wanted = {name: table.values[name] for name in self.targets}
        only = wanted[self.targets[0]]
        single = isinstance(self.target, str)
        named = self.targets[0] if single else ""
        found = []
        separator = ";" if ";" in table.separators else ","
        for n in rows:
            target = only[n]
            if not single:
                target = {name: values[n] for name, values in wanted.items()}
            row = Row(inputs, n, table.origins[n], separator, named)
            found.append(Example(table.names[n], row, target, table.origins[n]))
        return found

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read; see ``DataSource.contents``."""
        return self._origin().contents()

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the rows of a file or folder; see ``DataSource.unlabelled``."""
        listed = list_files(path, ROW_KINDS, encoding=self.encoding)
        if any(file.kind not in TABLE_KINDS for file in listed.files):
            yield from read_rows(path, dict, self.encoding)
            return
        # As in training: what a number is depends on what is between the cells of a file.
        # One by one: test rows have no target, and columns that are not read may differ.
        for file in list_and_say(path, ROW_KINDS, self.encoding):
            files = ((path, file),)
            table = read_columns(files, fingerprint(files), self.separator)
            separator = ";" if ";" in table.separators else ","
            for n, origin in enumerate(table.origins):
                row = Row(table.values, n, origin, separator)
                yield Unlabelled(dict(row), row, origin)

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the columns of the training split with kind, missing share and distinct values;
        targets; splits."""
        table, rows = self._rows_of("train")
        described = {
            name: _describe_column(name, [table.values[name][n] for n in rows])
            for name in self._input_columns(table)
        }
        hub = HubOrigin.of(self)
        if hub is not None:
            card = hub.about(self._hub_tables(hub))
        else:
            met = (own.met for own in self._read_tables().values())
            card = self._origin().about(sum(met, Counter()))
        card["columns"] = described
        card["constant_columns"] = [
            name
            for name, about in described.items()
            if about["distinct"] + (about["missing"] > 0) < 2
        ]
        compared = [*described, *self.targets]
        card["targets"] = {
            name: _describe_target(name, [table.values[name][n] for n in rows])
            for name in self.targets
        }
        for split in self.splits():
            card[split] = {"examples": len(self._rows_of(split)[1])}
        of_splits = {
            split: zip(*(own.values.get(name, ()) for name in compared), strict=False)
            for split, own in self._read_tables().items()
        }
        warnings = warn_of_repeated(of_splits, "rows")
        if numbers := [name for name in table.values if as_number(name or "x") is not None]:
            warnings.append(
                f"the header has columns called {', '.join(numbers[:5])}: if the first line is a"
                " row, put a line of names above it"
            )
        if warnings:
            card["warnings"] = warnings
        return card

    def _origin(self) -> Origin:
        return Origin(self, TABLE_KINDS, self.targets[0], Cells(self.separator))

    def _read_tables(self) -> dict[Split, Columns]:
        """Return the table of each split that has rows of its own."""
        hub = HubOrigin.of(self)
        if hub is not None:
            tables = {s: read_hub_columns(rows) for s, rows in self._hub_tables(hub).items()}
            refuse_idle(self, tuple(tables), "a split")
            return tables
        origin = self._origin()
        found: dict[Split, Columns] = {}
        for split in ("train", *origin.held_out):
            files = tuple(origin.files(split))
            if not files:  # its rows are in the files of training
                continue
            states = [file.path.stat() for _, file in files]
            stamp = repr([(state.st_size, state.st_mtime_ns) for state in states])
            key = hashlib.sha256(stamp.encode()).hexdigest()
            found[split] = read_columns(files, key, self.separator)
        if origin.column is not None:
            found |= divide_columns(found, origin.column.name)
        return {split: found[split] for split in ("train", *origin.held_out)}

    def _hub_tables(self, hub: HubOrigin) -> dict[Split, Any]:
        return dict(hub.tables(self.targets[0]))

    def _input_columns(self, table: Columns) -> list[str]:
        """Return the columns to predict from, once all that are named are known to be there."""
        named: dict[str, tuple[str | None, ...]] = {
            "target": self.targets,
            "columns": self.columns,
            "ignore": self.ignore,
            "group_column": (self.group_column,),
            "time_column": (self.time_column,),
        }
        for setting_name, columns in named.items():
            for name in columns:
                if name is not None and name not in table.values:
                    raise _missing_column(self.place, name, table, f"data.{setting_name}")
        # several targets must not predict each other
        left_out = {*self.targets, *self.ignore}
        found = list(self.columns) or [name for name in table.values if name not in left_out]
        if not found:
            raise DataError(
                self.place, "no column is left to predict from", "Name fewer under data.ignore"
            )
        for name in (*found, *self.targets):
            if name in table.nested:
                number = table.nested[name]
                value = table.values[name][number]
                holds = f"{type(value).__name__} {str(value)[:40]}"
                raise DataError(
                    table.origins[number],
                    f"column {name!r} holds {holds}; allowed: numbers, text, dates",
                    "Name it under data.ignore, or make columns of its parts",
                )
        return found

    def _rows_of(self, split: Split) -> tuple[Columns, list[int]]:
        """Return a table, and the numbers of the rows of it that are a split."""
        tables = self._read_tables()
        drawn = split == "train" or split not in tables
        table = tables["train" if drawn else split]
        self._input_columns(table)  # before the split, which may need a column that is missing
        sides: Sequence[Split | None] = [split] * len(table.names)
        if drawn:
            sides = self._draw_sides(table, tables)
        found = [number for number, side in enumerate(sides) if side == split][: self.limit]
        if not found:
            remedy = "Give more rows, or change data.fraction"
            different = len(set(map(str, table.values[self.targets[0]])))
            if len(self.targets) == 1 and different > len(sides) / 2 > 1:
                remedy = (
                    f"The target {self.targets[0]!r} has {different} different values in"
                    f" {len(sides)} rows: name another, or set task: regression to predict numbers"
                )
            raise DataError(self.place, f"nothing is left for {split} ({self.rule})", remedy)
        return table, found

    def _draw_sides(self, table: Columns, tables: dict[Split, Columns]) -> list[Split | None]:
        """Return the side of each row of the table that is learned from; None where rows of its
        group are named as held out."""
        rule = self.rule.without(split for split in tables if split != "train")
        groups = self._groups_of(table)
        drawn: list[Split] = ["train"] * len(groups)
        if rule.fraction or rule.test:
            labels: Sequence[Any] = [None] * len(groups)
            if len(self.targets) == 1:
                labels = table.values[self.targets[0]]
            times: Sequence[float] = ()
            if self.time_column is not None:
                values = table.values[self.time_column]
                times = times_of(values, table.origins, self.time_column)
            drawn = split_examples([(group,) for group in groups], labels, rule, times)
        if self.group_column is None or len(tables) == 1:
            return [*drawn]
        taken = {
            group
            for split, held_out in tables.items()
            if split != "train"
            for group in self._groups_of(held_out)
        }
        if left_out := sum(group in taken for group in groups):
            say_once(f"{self.place}: {left_out} rows are left out, whose group is held out by name")
        return [None if g in taken else side for g, side in zip(groups, drawn, strict=True)]

    def _groups_of(self, table: Columns) -> list[str]:
        if self.group_column is None:
            return table.names
        if self.group_column not in table.values:
            raise _missing_column(self.place, self.group_column, table, "data.group_column")
        values = zip(table.values[self.group_column], table.origins, strict=True)
        return [group_of(value, origin, self.group_column) for value, origin in values]


def _missing_column(where: str, name: str, table: Columns, setting_name: str) -> DataError:
    known = f"{did_you_mean(name, table.values)}columns: {', '.join(table.values)}"
    remedy = suggest_separator(tuple(table.values), f"Correct {setting_name}")
    first = next(iter(table.values.values()), ())
    if name in first:
        remedy = (
            f"The first column holds {name!r} as a value: if rows and columns are swapped, write"
            " the table with one example a row"
        )
    return DataError(where, f"there is no column {name!r}; {known}", remedy)


def _describe_column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    # of the different values, of which a column has few: each is looked at once
    counts = Counter(values)
    found = look_at(name, counts)
    read = {value: _read(value, found.kind, found.format) for value in counts}
    gone = sum(count for value, count in counts.items() if read[value] is None)
    distinct = len({each for each in read.values() if each is not None})
    return {"kind": found.kind, "missing": gone / len(values), "distinct": distinct}


def _read(value: Any, kind: Kind, form: Format) -> float | str | None:
    """Return what a value means, None where it is missing; one that is infinite is taken as missing
    too."""
    if kind == "categorical":
        return as_category(value) or None
    number = form.read(value, kind)
    if number is None:  # a mistake among numbers
        return str(value)
    return None if math.isnan(number) else number


def _describe_target(name: str, values: Sequence[Any]) -> dict[str, Any]:
    about = _describe_column(name, values)
    counts = Counter(values)
    if about["kind"] == "numeric" and len(counts) > 2:
        form = look_at(name, counts).format
        read = [(form.read(value, "numeric"), count) for value, count in counts.items()]
        there = [(n, count) for n, count in read if n is not None and not math.isnan(n)]
        total = sum(count for _, count in there)
        return about | {
            "mean": sum(n * count for n, count in there) / total,
            "lowest": min(there)[0],
            "highest": max(there)[0],
        }
    labels: Counter[str] = Counter()
    for label, count in counts.items():
        labels[as_category(label)] += count
    return about | {"labels": dict(labels.most_common(_LABELS_LISTED))}
