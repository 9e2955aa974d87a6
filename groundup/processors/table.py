"""Rows of a table as tensors: numbers scaled, categories numbered, by what the training split
shows.

Shape legend: N rows, I numbers a row, M categorical columns.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.core.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError, did_you_mean
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch
from groundup.media.table_values import (
    Kind,
    Row,
    as_boolean,
    as_category,
    as_date,
    as_number,
    kind_of,
)
from groundup.processors.saved_files import saved_settings, write_json

__all__ = ["Column", "Part", "TableConfig", "TableProcessor"]

_log = logging.getLogger("groundup")
_READ: dict[str, Callable[[Any], float | None]] = {
    "numeric": as_number,
    "boolean": as_boolean,
    "date": as_date,
}
_ALLOWED = {
    "numeric": "a number, or nothing",
    "boolean": "true or false, or nothing",
    "date": "a date in ISO 8601 such as 2024-05-31, seconds since 1970, or nothing",
}
_LARGEST = 1e30  # squares and sums of larger numbers are no longer finite in fp32
_TURN = ("day_of_year_sin", "day_of_year_cos")
Values = NDArray[np.float64]


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
        self.columns, self.missing, self.dropped = tuple(columns), missing, dict(dropped or {})
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
        read = _reader(inputs)
        numbers = np.empty((len(inputs), self.input_shape[0]), np.float32)
        place = 0
        for column in self._numeric:
            found = _numbers_of(read, column.name, column.kind, self.missing)
            numbers[:, place : place + column.width] = _encoded(column, found)
            place += column.width
        batch = {"inputs": torch.from_numpy(numbers)}
        if self._categorical:
            categories = np.empty((len(inputs), len(self._categorical)), np.int64)
            for m, column in enumerate(self._categorical):
                known = self._numbers[column.name]
                texts = _categories_of(read, column.name, self.missing)
                categories[:, m] = np.fromiter(
                    (known.get(text, 0) for text in texts), np.int64, len(inputs)
                )
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
            columns = [
                Column(
                    **each
                    | {
                        "parts": tuple(Part(**p) for p in each["parts"]),
                        "values": tuple(each["values"]),
                    }
                )
                for each in saved["columns"]
            ]
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
        read, given = _reader(rows), self._given_kinds(rows[0])
        columns: list[Column] = []
        dropped: dict[str, str] = {}
        for name in rows[0]:
            kind = given.get(name) or kind_of(_counts(read, name))
            column = (
                self._categories(read, name)
                if kind == "categorical"
                else self._numbers(read, name, kind)
            )
            if column.width or column.values:
                columns.append(column)
            else:
                dropped[name] = (
                    "does not vary"
                    if kind != "categorical"
                    else "has no two categories that are common"
                )
                if not any(_categories_of(read, name, "allow")):
                    dropped[name] = "is empty"
                _log.info("column %r is dropped: it %s in the training split", name, dropped[name])
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
                raise _missing_column(f"recipe.processor.{kind}", name, row)
        return given

    def _numbers(self, read: _Reader, name: str, kind: Kind) -> Column:
        found = _numbers_of(read, name, kind, self.missing)
        gone = np.isnan(found)
        first = float(np.nanmin(found)) if kind == "date" and not gone.all() else 0.0
        made = _parts(kind, found, first).items()
        parts = [_fitted(part, values[~gone], self.scaling) for part, values in made]
        return Column(
            name,
            kind,
            tuple(p for p in parts if p),
            bool(gone.any() and not gone.all()),
            first=first,
        )

    def _categories(self, read: _Reader, name: str) -> Column:
        counts = Counter(_categories_of(read, name, self.missing))
        kept = sorted(
            (v for v, n in counts.items() if v and n >= self.min_count),
            key=lambda v: (-counts[v], v),
        )
        constant = not kept or (len(kept) == 1 and len(counts) == 1)
        return Column(name, "categorical", values=() if constant else tuple(kept))

    @classmethod
    def load(cls, folder: Path) -> TableProcessor:
        """Return the processor that was saved to ``folder``."""
        return TableProcessor.load(folder)


# ---------------------------------------------------------------------------------- reading columns
@dataclass(frozen=True)
class _Reader:
    """Takes whole columns out of rows."""

    rows: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Sequence[Any]] | None  # the columns that all rows are rows of
    numbers: Sequence[int]

    def column(self, name: str) -> list[Any]:
        if self.shared is not None:
            if name not in self.shared:
                raise _missing_column(self.place(0), name, self.shared)
            values = self.shared[name]
            return [values[number] for number in self.numbers]
        for n, row in enumerate(self.rows):
            if name not in row:
                raise _missing_column(self.place(n), name, row)
        return [row[name] for row in self.rows]

    def place(self, number: int) -> str:
        return getattr(self.rows[number], "origin", "") or f"row {number + 1}"


def _reader(inputs: Sequence[Any]) -> _Reader:
    shared = (
        getattr(inputs[0], "columns", None) if len(inputs) and isinstance(inputs[0], Row) else None
    )
    if shared is not None and all(isinstance(row, Row) and row.columns is shared for row in inputs):
        return _Reader(inputs, shared, [row.number for row in inputs])
    return _Reader([_row(row, n) for n, row in enumerate(inputs, 1)], None, ())


def _row(row: Any, number: int) -> Mapping[str, Any]:
    found = row
    if isinstance(row, str):
        try:
            found = json.loads(row)
        except ValueError:
            found = row
    if not isinstance(found, Mapping):
        problem = f"is {str(row)[:60]!r}; allowed: an object of column -> value"
        raise DataError(f"row {number}", problem, 'Write for example {"age": 31, "city": "Rome"}')
    return found


def _missing_column(where: str, name: str, row: Mapping[str, Any]) -> DataError:
    problem = (
        f"there is no column {name!r}; {did_you_mean(name, row)}columns: {', '.join(row) or 'none'}"
    )
    return DataError(where, problem, "Give the column, with an empty value where it is not known")


def _counts(read: _Reader, name: str) -> Counter[Any]:
    values = read.column(name)
    try:
        return Counter(values)
    except TypeError:
        number = next(n for n, value in enumerate(values) if not _is_plain(value))
        holds = f"holds {type(values[number]).__name__} {str(values[number])[:40]}"
        problem = f"column {name!r} {holds}; allowed: numbers, text, dates"
        raise DataError(read.place(number), problem, "Give one value") from None


def _is_plain(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _numbers_of(read: _Reader, name: str, kind: Kind, missing: str) -> Values:
    """Return (N,) the numbers of a column, NaN where there is none. Each distinct value is read
    once."""
    values, meaning = read.column(name), {}
    for value in _counts(read, name):
        found = _READ[kind](value)
        if found is None or (missing == "stop" and math.isnan(found)) or abs(found) > _LARGEST:
            number = (
                values.index(value)
                if value == value
                else next(n for n, v in enumerate(values) if v != v)
            )
            if found is not None and abs(found) > _LARGEST:
                problem = (
                    f"column {name!r} holds {value!r}; allowed: numbers up to {_LARGEST:g} in size"
                )
                raise DataError(read.place(number), problem, "Correct it, or leave it empty")
            raise _unreadable(read.place(number), name, value, kind if found is None else None)
        meaning[value] = found
    return np.fromiter(map(meaning.__getitem__, values), np.float64, len(values))


def _categories_of(read: _Reader, name: str, missing: str) -> list[str]:
    values = read.column(name)
    meaning = {value: as_category(value) for value in _counts(read, name)}
    found = [meaning[value] for value in values]
    if missing == "stop" and "" in meaning.values():
        number = found.index("")
        raise _unreadable(read.place(number), name, values[number], None)
    return found


def _unreadable(where: str, name: str, value: Any, kind: Kind | None) -> DataError:
    if kind is None:
        problem = (
            f"column {name!r} holds {value!r}, which is a missing value, and"
            " recipe.processor.missing is stop"
        )
        return DataError(where, problem, "Fill it in, remove the row, or set missing: allow")
    listed = "the column's other values are" if kind != "boolean" else "the column is"
    problem = f"column {name!r} holds {value!r}; {listed} of kind {kind}; allowed: {_ALLOWED[kind]}"
    return DataError(where, problem, "Correct it, or name the column under processor.categorical")


# ---------------------------------------------------------------------------------- numbers of them
def _parts(kind: Kind, values: Values, first: float) -> dict[str, Values]:
    """Return the numbers made of a column's values, each (N,), by name."""
    if kind != "date":
        return {"value": values}
    with np.errstate(invalid="ignore"):
        moments = np.where(np.isnan(values), 0.0, values).astype("datetime64[s]")
    days, years = moments.astype("datetime64[D]"), moments.astype("datetime64[Y]")
    turn = 2 * np.pi * (days - years.astype("datetime64[D]")).astype(np.float64) / 365.25
    found = {
        "year": years.astype(np.float64) + 1970,
        "month": moments.astype("datetime64[M]").astype(np.float64) % 12 + 1,
        "day_of_week": (days.astype(np.float64) + 3) % 7,  # Monday is 0
        "day_of_year_sin": np.sin(turn),
        "day_of_year_cos": np.cos(turn),
        "seconds": values - first,
    }
    return {name: np.where(np.isnan(values), np.nan, each) for name, each in found.items()}


def _fitted(name: str, values: Values, scaling: str) -> Part | None:
    """Return how a number is scaled, or None where it does not vary. Sines and cosines stay as they
    are."""
    if not len(values) or values.min() == values.max():
        return None
    mean = float(values.mean())
    if scaling == "none" or name in _TURN:
        return Part(name, mean, 0.0, 1.0)
    low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    if scaling == "robust" and high > low:
        return Part(name, mean, middle, high - low)
    return Part(name, mean, mean, float(values.std()))


def _encoded(column: Column, values: Values) -> Values:
    """Return (N, width) the scaled numbers of a column, and whether it is missing."""
    gone = np.isnan(values)
    found = _parts(column.kind, values, column.first)
    scaled = [
        (np.where(gone, part.fill, found[part.name]) - part.shift) / part.scale
        for part in column.parts
    ]
    return np.stack([*scaled, gone.astype(np.float64)] if column.indicator else scaled, 1)
