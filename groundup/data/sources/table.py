"""Tables: rows of .csv, .tsv and .parquet files, or of a Hugging Face data set, with columns to
predict."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import DataError, did_you_mean
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.reading.columns import TABLE_KINDS, Columns, read_columns, read_hub_columns
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.location import Origin
from groundup.data.reading.source import Source, refuse_idle
from groundup.data.splitting.held_out import split_examples
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.media.table_values import Row, as_category, as_date, as_number, is_missing, kind_of

__all__ = ["TableSource"]

# in the card; a column of names would fill pages
_LABELS_LISTED = 50


@data("table")
class TableSource(Source):
    """Rows of files with named columns. Which kind of values a column holds is found by the
    processor ``table``."""

    reads_in_order = False
    # with own validation rows nothing is drawn, and these would have no effect
    for_drawing = ("group_column", "time_column")

    target: str | tuple[str, ...] = setting(..., "the column to predict, or several")
    columns: tuple[str, ...] = setting((), "columns to predict from; empty: all but the target")
    ignore: tuple[str, ...] = setting(
        (), "columns to leave out, such as one that gives the target away"
    )
    group_column: str | None = setting(
        None,
        "rows with the same value of it, such as a user, stay on one side of the split",
        applies_when={"time_column": (None,)},
    )
    time_column: str | None = setting(None, "numbers or dates: the latest rows are held out")

    def problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if not self.targets:
            return "target is an empty list. Name the column to predict"
        for name in self.targets:
            if name in self.columns:
                given_away = f"columns names the target {name!r}, which would give it away"
                return f"{given_away}. Remove it there"
        if self.columns and self.ignore:
            return "ignore has no effect with columns. Remove one of them"
        if self.time_column is not None and self.given("seed"):
            return "seed has no effect with time_column. Remove one of them"
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
        found = []
        for n in rows:
            target = only[n]
            if not single:
                target = {name: values[n] for name, values in wanted.items()}
            row = Row(inputs, n, table.origins[n])
            found.append(Example(table.names[n], row, target, table.origins[n]))
        return found

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, kept in memory."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the columns of the training split with kind, missing share and distinct values;
        targets; splits."""
        table, rows = self._rows_of("train")
        described = {
            name: _describe_column([table.values[name][n] for n in rows])
            for name in self._input_columns(table)
        }
        hub = HubOrigin.of(self)
        if hub is not None:
            card = hub.about(self._hub_tables(hub))
        else:
            card = Origin(self, TABLE_KINDS).about()
        card["columns"] = described
        card["constant_columns"] = [
            name for name, about in described.items() if about["distinct"] < 2
        ]
        card["targets"] = {
            name: _describe_target([table.values[name][n] for n in rows]) for name in self.targets
        }
        for split in self.splits():
            card[split] = {"examples": len(self._rows_of(split)[1])}
        return card

    def _read_tables(self) -> dict[Split, Columns]:
        """Return the table of each split that has rows of its own."""
        hub = HubOrigin.of(self)
        if hub is not None:
            tables = {s: read_hub_columns(rows) for s, rows in self._hub_tables(hub).items()}
            refuse_idle(self, tuple(tables), "a split")
            return tables
        origin = Origin(self, TABLE_KINDS)
        found: dict[Split, Columns] = {}
        for split in ("train", *origin.held_out):
            files = tuple(origin.files(split))
            states = [file.path.stat() for _, file in files]
            stamp = repr([(state.st_size, state.st_mtime_ns) for state in states])
            found[split] = read_columns(files, hashlib.sha256(stamp.encode()).hexdigest())
        return found

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
            problem = "no column is left to predict from"
            raise DataError(self.place, problem, "Name fewer under data.ignore")
        for name in (*found, *self.targets):
            if name in table.nested:
                number = table.nested[name]
                value = table.values[name][number]
                holds = f"{type(value).__name__} {str(value)[:40]}"
                problem = f"column {name!r} holds {holds}; allowed: numbers, text, dates"
                remedy = "Name it under data.ignore, or make columns of its parts"
                raise DataError(table.origins[number], problem, remedy)
        return found

    def _rows_of(self, split: Split) -> tuple[Columns, list[int]]:
        """Return a table, and the numbers of the rows of it that are a split."""
        tables = self._read_tables()
        drawn = split == "train" or split not in tables
        table = tables["train" if drawn else split]
        self._input_columns(table)  # before the split, which may need a column that is missing
        sides: Sequence[Split] = [split] * len(table.names)
        if drawn:
            sides = self._draw_sides(table, tuple(tables))
        found = [number for number, side in enumerate(sides) if side == split][: self.limit]
        if not found:
            problem = f"nothing is left for {split} ({self.rule})"
            raise DataError(self.place, problem, "Give more rows, or change data.fraction")
        return table, found

    def _draw_sides(self, table: Columns, named: tuple[Split, ...]) -> Sequence[Split]:
        """Return the side of each row of the table that is learned from."""
        rule = self.rule.without(split for split in named if split != "train")
        if not rule.fraction and not rule.test:
            return ["train"] * len(table.names)
        if self.time_column is not None:
            return self._draw_latest(table, rule.fraction, rule.test)
        groups = table.names
        if self.group_column is not None:
            groups = [as_category(value) for value in table.values[self.group_column]]
            # rows without a group would all be one group, held out together or not at all
            if "" in groups:
                where = table.origins[groups.index("")]
                problem = f"group_column {self.group_column!r} is empty"
                raise DataError(where, problem, "Give each row its group")
        labels: Sequence[Any] = [None] * len(groups)
        if len(self.targets) == 1:
            labels = table.values[self.targets[0]]
        return split_examples([(group,) for group in groups], labels, rule)

    def _draw_latest(self, table: Columns, fraction: float, test: float) -> list[Split]:
        """Return the side of each row by its time: the latest rows are the test, and those before
        them validation; rows of the same time are on one side."""
        assert self.time_column is not None
        times = []
        for origin, value in zip(table.origins, table.values[self.time_column], strict=True):
            time = as_number(value)
            if time is None:
                time = as_date(value)
            if time is None or math.isnan(time):
                problem = (
                    f"time_column {self.time_column!r} holds {value!r}; allowed: a number, or a"
                    " date in ISO 8601"
                )
                raise DataError(origin, problem, "Correct it, or name another column")
            times.append(time)
        # by the time at which a share begins, not by counting rows: rows of one moment, such as the
        # items of an order, would be cut in two
        ordered = sorted(times)
        test_begins = math.inf
        validation_begins = ordered[-max(1, round(len(times) * (fraction + test)))]
        if test:
            test_begins = ordered[-max(1, round(len(times) * test))]
        sides: list[Split] = []
        for time in times:
            if time >= test_begins:
                sides.append("test")
            else:
                sides.append("validation" if time >= validation_begins else "train")
        return sides


def _missing_column(where: str, name: str, table: Columns, setting_name: str) -> DataError:
    known = f"{did_you_mean(name, table.values)}columns: {', '.join(table.values)}"
    return DataError(where, f"there is no column {name!r}; {known}", f"Correct {setting_name}")


def _is_gone(value: Any) -> bool:
    """Whether a value of a column of numbers is missing; one that is infinite is taken as missing
    too."""
    return is_missing(value) or math.isnan(as_number(value) or 0.0)


def _describe_column(values: Sequence[Any]) -> dict[str, Any]:
    # of the different values, of which a column has few: each is looked at once
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
    about = _describe_column(values)
    counts = Counter(values)
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
