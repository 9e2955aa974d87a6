"""Rows of a table as tensors: numbers scaled, categories numbered, by what the training split
shows.

Shape legend: N rows, I numbers a row, M categorical columns.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import model_validator

from groundup.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch
from groundup.media.table_values import Kind, kind_of
from groundup.processors.saved_files import saved_settings, write_json
from groundup.processors.table_columns import ColumnReader, Values, missing_column, numbers_in

__all__ = ["Column", "Part", "TableConfig", "TableProcessor"]

_log = logging.getLogger("groundup")
# Sines and cosines, which are between -1 and 1 as they are.
_TURN = ("day_of_year_sin", "day_of_year_cos")


@dataclass(frozen=True)
class Part:
    """One number made of a column: ``(value - shift) / scale``, with ``fill`` as the value where
    there is none."""

    name: str
    fill: float
    shift: float
    scale: float


@dataclass(frozen=True)
class Column:
    """What is known of one column.

    Attributes:
        parts: The numbers made of it; none where it is categorical.
        indicator: Whether a further number says that the value is missing: only where that happened
            in training.
        values: The known categories, commonest first, numbered from 1; 0 is an unknown or missing
            one.
        first: Of dates, the seconds since 1970 from which they are counted.
    """

    name: str
    kind: Kind
    parts: tuple[Part, ...] = ()
    indicator: bool = False
    values: tuple[str, ...] = ()
    first: float = 0.0

    @property
    def width(self) -> int:
        """How many numbers are made of it."""
        return len(self.parts) + self.indicator

    def encode(self, values: Values) -> Values:
        """Return (N, width) of (N,) values: the scaled numbers, and whether the value is
        missing."""
        gone = np.isnan(values)
        found = numbers_in(self.kind, values, self.first)
        numbers = [
            (np.where(gone, part.fill, found[part.name]) - part.shift) / part.scale
            for part in self.parts
        ]
        # A column that had no gaps in training gets no such number: it would be constant.
        if self.indicator:
            numbers.append(gone.astype(np.float64))
        return np.stack(numbers, 1)


class TableProcessor(InputProcessor):
    """Turns rows, given as dictionaries of column -> value, into tensors.

    Args:
        columns: The columns that are read, in the order of the numbers made of them.
        missing: ``"stop"`` makes a missing value an error.
        dropped: Columns that are not read, each with the reason.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        missing: Literal["allow", "stop"],
        dropped: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.missing = missing
        self.dropped = dict(dropped or {})
        self._numeric = [column for column in self.columns if column.kind != "categorical"]
        self._categorical = [column for column in self.columns if column.kind == "categorical"]
        self._numbers = {
            c.name: {v: n for n, v in enumerate(c.values, 1)} for c in self._categorical
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(I,); I is 0 where all columns are categorical."""
        return (sum(column.width for column in self._numeric),)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each categorical column has, 0 for the unknown ones included."""
        return tuple(len(column.values) + 1 for column in self._categorical)

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, I) float32 and, where there are categorical columns, ``categories``
        (N, M) int64.

        Args:
            inputs: Rows: dictionaries, or the text of a JSON object. Columns that are not known are
                passed over.

        Raises:
            DataError: If a row lacks a column, or a value is not of its column's kind.
        """
        reader = ColumnReader.of(inputs)
        complete = self.missing == "stop"
        numbers = np.empty((len(inputs), self.input_shape[0]), np.float32)
        place = 0
        for column in self._numeric:
            found = reader.read_numbers(column.name, column.kind, complete=complete)
            numbers[:, place : place + column.width] = column.encode(found)
            place += column.width
        batch = {"inputs": torch.from_numpy(numbers)}
        if self._categorical:
            categories = np.empty((len(inputs), len(self._categorical)), np.int64)
            for m, column in enumerate(self._categorical):
                known = self._numbers[column.name]
                texts = reader.read_categories(column.name, complete=complete)
                numbers_of = (known.get(text, 0) for text in texts)
                # Categories that were not seen in training are all number 0.
                categories[:, m] = np.fromiter(numbers_of, np.int64, len(inputs))
            batch["categories"] = torch.from_numpy(categories)
        return batch

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {"name": "table", "missing": self.missing, "dropped": self.dropped}
        write_json(
            folder / "processor.json",
            saved | {"columns": [asdict(column) for column in self.columns]},
        )

    @classmethod
    def load(cls, folder: Path) -> TableProcessor:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If processor.json is missing or is not what ``save`` writes.
        """
        with saved_settings(folder) as saved:
            columns = []
            for each in saved["columns"]:
                each["parts"] = tuple(Part(**part) for part in each["parts"])
                each["values"] = tuple(each["values"])
                columns.append(Column(**each))
            return cls(columns, saved["missing"], saved["dropped"])


@processor("table")
class TableConfig(ProcessorConfig):
    """What is made of a table's columns: their kinds, ranges and categories are those of the
    training split.

    Numbers, truth values and dates are found by themselves; every other column is categorical. A
    column that does not vary, or of which every category is rarer than ``min_count``, is dropped.
    """

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    numeric: tuple[str, ...] = setting((), "Columns to read as numbers, whatever they look like")
    categorical: tuple[str, ...] = setting(
        (), "Columns to read as categories, such as numbers that name something"
    )
    dates: tuple[str, ...] = setting(
        (), "Columns to read as dates: ISO 8601, or seconds since 1970"
    )
    scaling: Literal["standard", "robust", "none"] = setting(
        "standard", "Of numbers: to mean 0 and deviation 1; by median and quartiles; or as they are"
    )
    min_count: int = setting(
        2, "Rarer categories of the training split are taken together as the unknown one", ge=1
    )
    missing: Literal["allow", "stop"] = setting(
        "allow", "Fill missing values with the mean; or make them an error"
    )

    @model_validator(mode="after")
    def _one_kind_a_column(self) -> TableConfig:
        for name, count in Counter([*self.numeric, *self.categorical, *self.dates]).items():
            if count > 1:
                raise ValueError(
                    f"column {name!r} is named {count} times among numeric, categorical and dates."
                    " Keep one"
                )
        return self

    def fit(self, texts: Callable[[], Iterator[Any]]) -> TableProcessor:
        """Return the processor with what the training split shows of each column.

        Raises:
            DataError: If there are no rows, a named column does not exist, a value is not of its
                column's kind, or nothing varies.
        """
        rows = [example.inputs for example in texts()]
        if not rows:
            raise DataError(
                "recipe.processor", "there are no training examples", "Check the data section"
            )
        # All of the split at once: kinds and categories need every value.
        reader = ColumnReader.of(rows)
        given = self._given_kinds(rows[0])
        columns: list[Column] = []
        dropped: dict[str, str] = {}
        for name in rows[0]:
            kind = given.get(name) or kind_of(reader.count(name))
            if kind == "categorical":
                column = self._fit_categories(reader, name)
                why = "has no two categories that are common"
            else:
                column = self._fit_numbers(reader, name, kind)
                why = "does not vary"
            if column.width or column.values:
                columns.append(column)
                continue
            if not any(reader.read_categories(name, complete=False)):
                why = "is empty"
            dropped[name] = why
            _log.info("column %r is dropped: it %s in the training split", name, why)
        if not columns:
            raise DataError(
                "recipe.processor",
                "no column of the training split varies",
                "Check the data section",
            )
        return TableProcessor(columns, self.missing, dropped)

    def _given_kinds(self, row: Mapping[str, Any]) -> dict[str, Kind]:
        named: dict[Kind, tuple[str, ...]] = {
            "numeric": self.numeric,
            "categorical": self.categorical,
            "date": self.dates,
        }
        given = {name: kind for kind, names in named.items() for name in names}
        for name in given:
            if name not in row:
                kind = "dates" if given[name] == "date" else given[name]
                raise missing_column(f"recipe.processor.{kind}", name, row)
        return given

    def _fit_numbers(self, reader: ColumnReader, name: str, kind: Kind) -> Column:
        found = reader.read_numbers(name, kind, complete=self.missing == "stop")
        there = ~np.isnan(found)
        if not there.any():
            return Column(name, kind)
        first = float(found[there].min()) if kind == "date" else 0.0
        made = numbers_in(kind, found[there], first).items()
        parts = [_fit_part(part, values, self.scaling) for part, values in made]
        return Column(name, kind, tuple(p for p in parts if p), not there.all(), first=first)

    def _fit_categories(self, reader: ColumnReader, name: str) -> Column:
        counts = Counter(reader.read_categories(name, complete=self.missing == "stop"))
        # Of equally common ones the first in the alphabet, so that the order of rows plays no part.
        kept = sorted(
            (v for v, n in counts.items() if v and n >= self.min_count),
            key=lambda v: (-counts[v], v),
        )
        # One category in all of the rows tells nothing.
        if len(counts) == 1:
            kept = []
        return Column(name, "categorical", values=tuple(kept))

    @classmethod
    def load(cls, folder: Path) -> TableProcessor:
        """Return the processor that was saved to ``folder``."""
        return TableProcessor.load(folder)


def _fit_part(name: str, values: Values, scaling: str) -> Part | None:
    """Return how a number is scaled, or None where it does not vary. Sines and cosines stay as they
    are."""
    if values.min() == values.max():
        return None
    mean = float(values.mean())
    if scaling == "none" or name in _TURN:
        return Part(name, mean, 0.0, 1.0)
    if scaling == "robust":
        low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        # Half of the values may well be the same.
        if high > low:
            return Part(name, mean, middle, high - low)
    return Part(name, mean, mean, float(values.std()))
