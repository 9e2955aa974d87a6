"""Rows of a table as tensors: numbers scaled, categories numbered, by what the training split
shows.

Shape legend: N rows, I numbers a row, M categorical columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs
from groundup.media.column_format import AmbiguousColumn, Format, Style
from groundup.media.find_format import Found, find_formats
from groundup.media.labels import differ_in_case
from groundup.media.table_values import Kind, Row, as_category
from groundup.processors.saved_files import saved_settings, write_json
from groundup.processors.table_columns import (
    ColumnReader,
    Values,
    missing_column,
    numbers_in,
    refuse_others,
)
from groundup.processors.table_warnings import (
    find_leaks,
    find_stand_in,
    like_an_id,
    nothing_varies,
    why_dropped,
)

__all__ = ["Column", "Part", "TableConfig", "TableProcessor"]

# Sines and cosines, which are between -1 and 1 as they are.
_TURN = ("day_of_year_sin", "day_of_year_cos")
# Of a column's values, from which on rare categories are worth a word.
_MANY_RARE = 0.05


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
        format: How the values are written.
    """

    name: str
    kind: Kind
    parts: tuple[Part, ...] = ()
    indicator: bool = False
    values: tuple[str, ...] = ()
    first: float = 0.0
    format: Format = field(default_factory=Format)

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
        notes: What there is to say of the training split.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        missing: Literal["allow", "stop"],
        dropped: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.columns = tuple(columns)
        self.missing = missing
        self.dropped = dict(dropped or {})
        self.notes = tuple(notes)
        self.cut = self._counted = CutInputs()
        self._numeric = [column for column in self.columns if column.kind != "categorical"]
        self._categorical = [column for column in self.columns if column.kind == "categorical"]
        self._numbers = {
            c.name: {as_category(v): n for n, v in enumerate(c.values, 1)}
            for c in self._categorical
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
            found = reader.read_numbers(column.name, column.kind, column.format, complete=complete)
            numbers[:, place : place + column.width] = column.encode(found)
            if not column.indicator:
                what = f"values of column {column.name!r} are missing, as none were in training"
                self._counted.count(what, int(np.isnan(found).sum()), "the mean is taken")
            place += column.width
        batch = {"inputs": torch.from_numpy(numbers)}
        if self._categorical:
            categories = np.empty((len(inputs), len(self._categorical)), np.int64)
            for m, column in enumerate(self._categorical):
                known = self._numbers[column.name]
                marks = column.format.missing
                texts = reader.read_categories(column.name, marks, complete=complete)
                unknown = [text for text in texts if text and text not in known]
                what = f"values of column {column.name!r} are none of the known categories"
                self._counted.count(
                    what, len(unknown), f"such as {unknown[0]!r}" if unknown else ""
                )
                numbers_of = (known.get(text, 0) for text in texts)
                # Categories that were not seen in training are all number 0.
                categories[:, m] = np.fromiter(numbers_of, np.int64, len(inputs))
            batch["categories"] = torch.from_numpy(categories)
        return batch

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        saved: dict[str, Any] = {"name": "table", "missing": self.missing, "dropped": self.dropped}
        saved["notes"] = self.notes
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
                # Runs of before have neither formats nor notes.
                form = each.pop("format", {})
                form["missing"] = tuple(form.get("missing", ()))
                columns.append(Column(**each, format=Format(**form)))
            return cls(columns, saved["missing"], saved["dropped"], saved.get("notes", ()))


@processor("table")
class TableConfig(ProcessorConfig):
    """What is made of a table's columns: their kinds, ranges and categories are those of the
    training split.

    Numbers, truth values, dates and times are found by themselves, and how they are written; every
    other column is categorical. A column that does not vary, or of which every category is rarer
    than ``min_count``, is dropped.
    """

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    numeric: tuple[str, ...] = setting((), "Columns to read as numbers, whatever they look like")
    categorical: tuple[str, ...] = setting(
        (), "Columns to read as categories, such as numbers that name something"
    )
    dates: tuple[str, ...] = setting((), "Columns to read as dates, or as seconds since 1970")
    decimal: Literal[".", ","] | None = setting(
        None, "Sign before the decimals of numbers; silent: as the training split shows"
    )
    day_first: bool | None = setting(
        None, "Whether 1/2/2024 is in February; silent: as the training split shows"
    )
    missing_values: tuple[str, ...] = setting(
        (), "Texts that stand for no value, next to NA, null, -, ? and the like"
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
        read = list(texts())
        rows = [example.inputs for example in read]
        if not rows:
            raise DataError(
                "recipe.processor", "there are no training examples", "Check the data section"
            )
        # All of the split at once: kinds, formats and categories need every value.
        reader = ColumnReader.of(rows)
        formats = self._find_formats(reader, rows[0])
        columns: list[Column] = []
        dropped: dict[str, str] = {}
        notes: list[str] = []
        values: dict[str, Any] = {}
        for name, found in formats.items():
            notes += found.notes
            column, values[name] = self._fit_column(reader, name, found)
            if column.width or column.values:
                columns.append(column)
                if column.kind == "categorical":
                    notes += self._note_categories(column, values[name])
                if column.kind == "numeric" and (note := find_stand_in(name, values[name])):
                    notes.append(note)
                if column.kind == "numeric" and like_an_id(values[name]):
                    notes.append(
                        f"column {name!r} grows or shrinks from row to row, like an id: if it is"
                        " one, name it under data.ignore"
                    )
                continue
            dropped[name] = why = why_dropped(column.kind, values[name])
            notes.append(f"column {name!r} is dropped: it {why} in the training split")
        if not columns:
            raise nothing_varies(dropped, len(rows))
        kept = {column.name: values[column.name] for column in columns}
        notes += find_leaks(kept, [example.target for example in read])
        return TableProcessor(columns, self.missing, dropped, notes)

    def _find_formats(self, reader: ColumnReader, first: Mapping[str, Any]) -> dict[str, Found]:
        separator = first.separator if isinstance(first, Row) else ","
        style = Style(self.decimal, self.day_first, self.missing_values, separator)
        counts = {name: reader.count(name) for name in first}
        given = self._given_kinds(first)
        try:
            found = find_formats(counts, style, given)
        except AmbiguousColumn as error:
            remedy = error.remedy.format(section="processor")
            raise DataError("training split", error.problem, remedy) from None
        for name, kind in given.items():
            if kind != "categorical":
                refuse_others(name, counts[name], kind, found[name].format)
        return found

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
                error = missing_column(f"recipe.processor.{kind}", name, row)
                raise DataError(error.where, error.problem, "Name columns to predict from alone")
        return given

    def _fit_column(
        self, reader: ColumnReader, name: str, found: Found
    ) -> tuple[Column, NDArray[Any]]:
        """Return a column, and its values (N,): numbers, or texts."""
        complete = self.missing == "stop"
        if found.kind == "categorical":
            texts = reader.read_categories(name, found.format.missing, complete=complete)
            kept = self._choose_categories(Counter(texts))
            return Column(name, "categorical", values=kept, format=found.format), np.array(
                texts, dtype=object
            )
        numbers = reader.read_numbers(name, found.kind, found.format, complete=complete)
        there = ~np.isnan(numbers)
        if not there.any():
            return Column(name, found.kind), numbers
        first = float(numbers[there].min()) if found.kind == "date" else 0.0
        made = numbers_in(found.kind, numbers[there], first).items()
        fitted = [_fit_part(part, values, self.scaling) for part, values in made]
        parts = tuple(part for part in fitted if part)
        gaps = not there.all()
        return Column(name, found.kind, parts, gaps, first=first, format=found.format), numbers

    def _note_categories(self, column: Column, texts: NDArray[Any]) -> list[str]:
        """Return what there is to say of categories: which may be one, and how many values are rare
        ones."""
        found = [
            f"column {column.name!r}: {each}, and are different categories"
            for each in differ_in_case(column.values)
        ]
        kept = {"", *column.values}
        rare = sum(text not in kept for text in texts)
        if rare > _MANY_RARE * len(texts):
            found.append(
                f"column {column.name!r}: {rare:,} of {len(texts):,} values are rarer than"
                f" processor.min_count {self.min_count}, and read as one unknown category"
            )
        return found

    def _choose_categories(self, counts: Counter[str]) -> tuple[str, ...]:
        # One category in all of the rows tells nothing.
        if len(counts) == 1:
            return ()
        # Of equally common ones the first in the alphabet, so that the order of rows plays no part.
        common = (v for v, n in counts.items() if v and n >= self.min_count)
        return tuple(sorted(common, key=lambda v: (-counts[v], v)))

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
