"""Columns taken out of rows, each distinct value read once, and the numbers made of them.

Shape legend: N rows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, did_you_mean
from groundup.media.column_format import Format
from groundup.media.table_values import Kind, Row, as_category, as_number

__all__ = ["ColumnReader", "Values", "missing_column", "numbers_in", "refuse_others"]

Values = NDArray[np.float64]
# Squares and sums of larger numbers are no longer finite in fp32.
_LARGEST = 1e30


@dataclass(frozen=True)
class ColumnReader:
    """Takes whole columns out of rows.

    Attributes:
        rows: Column -> value, each.
        shared: The columns that all rows are rows of, where they are of one table.
        numbers: Which rows of those.
    """

    rows: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Sequence[Any]] | None = None
    numbers: Sequence[int] = ()

    @classmethod
    def of(cls, inputs: Sequence[Any]) -> ColumnReader:
        """Return the reader of rows: dictionaries, or texts of JSON objects.

        Raises:
            DataError: If one is neither.
        """
        rows = [row for row in inputs if isinstance(row, Row)]
        if rows and len(rows) == len(inputs):
            shared = rows[0].columns
            # Rows of one table need not be put together one value at a time.
            if all(row.columns is shared for row in rows):
                return cls(rows, shared, [row.number for row in rows])
        return cls([_parse_row(row, n) for n, row in enumerate(inputs, 1)])

    def column(self, name: str) -> list[Any]:
        """Return the values of a column.

        Raises:
            DataError: If a row lacks it.
        """
        if self.shared is not None:
            if name not in self.shared:
                raise missing_column(self.locate(0), name, self.shared)
            values = self.shared[name]
            return [values[number] for number in self.numbers]
        for n, row in enumerate(self.rows):
            if name not in row:
                raise missing_column(self.locate(n), name, row)
        return [row[name] for row in self.rows]

    def locate(self, number: int) -> str:
        """Return where a row is from, for messages."""
        row = self.rows[number]
        return (row.origin if isinstance(row, Row) else "") or f"row {number + 1}"

    def count(self, name: str) -> Counter[Any]:
        """Return how often each value of a column occurs.

        Raises:
            DataError: If one is a list or the like.
        """
        values = self.column(name)
        try:
            return Counter(values)
        except TypeError:
            number = next(n for n, value in enumerate(values) if not _is_hashable(value))
            holds = f"{type(values[number]).__name__} {str(values[number])[:40]}"
            raise DataError(
                self.locate(number),
                f"column {name!r} holds {holds}; allowed: numbers, text, dates",
                "Give one value",
            ) from None

    def read_numbers(self, name: str, kind: Kind, form: Format, *, complete: bool) -> Values:
        """Return (N,) the numbers of a column, NaN where there is none.

        Args:
            name: The column.
            kind: What its values are.
            form: How they are written.
            complete: Whether a missing value is an error.

        Raises:
            DataError: If a value is not of this kind, too large, or missing.
        """
        values = self.column(name)
        meaning: dict[Any, float] = {}
        plain = kind == "numeric" and form in (Format(), Format("."))
        for value in self.count(name):
            # The quick way first: most columns are written plainly.
            found = as_number(value) if plain else None
            if found is None:
                found = form.read(value, kind)
            if found is None:
                raise _other_kind(self._locate_value(values, value), name, value, kind, form)
            if complete and math.isnan(found):
                raise _missing_value(self._locate_value(values, value), name, value)
            if abs(found) > _LARGEST:
                raise DataError(
                    self._locate_value(values, value),
                    f"column {name!r} holds {value!r}; allowed: numbers up to {_LARGEST:g} in size",
                    "Correct it, or leave it empty",
                )
            meaning[value] = found
        return np.fromiter(map(meaning.__getitem__, values), np.float64, len(values))

    def read_categories(
        self, name: str, missing: Sequence[str] = (), *, complete: bool
    ) -> list[str]:
        """Return the texts of a column, empty where there is none.

        Args:
            name: The column.
            missing: Texts that stand for none.
            complete: Whether a missing value is an error.

        Raises:
            DataError: If a value is missing.
        """
        values = self.column(name)
        meaning = {value: as_category(value) for value in self.count(name)}
        if missing:
            meaning = {value: "" if text in missing else text for value, text in meaning.items()}
        found = [meaning[value] for value in values]
        if complete and "" in meaning.values():
            number = found.index("")
            raise _missing_value(self.locate(number), name, values[number])
        return found

    def _locate_value(self, values: list[Any], value: Any) -> str:
        # A NaN equals nothing, not even itself.
        same = (n for n, each in enumerate(values) if each is value or each == value)
        return self.locate(next(same))


def _parse_row(row: Any, number: int) -> Mapping[str, Any]:
    found = row
    if isinstance(row, str):
        try:
            found = json.loads(row)
        except ValueError:
            found = None
    if not isinstance(found, Mapping):
        raise DataError(
            f"row {number}",
            f"is {str(row)[:60]!r}; allowed: an object of column -> value",
            'Write for example {"age": 31, "city": "Rome"}',
        )
    return found


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def missing_column(where: str, name: str, row: Mapping[str, Any]) -> DataError:
    """Return the error for a column that is not there."""
    known = ", ".join(row) or "none"
    problem = f"there is no column {name!r}; {did_you_mean(name, row)}columns: {known}"
    remedy = "Give the column, with an empty value where it is not known"
    marks = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
    inside = [word for mark, word in marks.items() if len(row) == 1 and mark in next(iter(row))]
    if inside:
        remedy = f"The header holds {inside[0]}: set data.separator to them"
    elif any(as_number(each) is not None for each in row if each):
        remedy = "If the first line is a row, put a line with the names of the columns above it"
    return DataError(where, problem, remedy)


def _missing_value(where: str, name: str, value: Any) -> DataError:
    return DataError(
        where,
        f"column {name!r} holds {value!r}, which is a missing value, but recipe.processor.missing"
        " is stop",
        "Fill it in, remove the row, or set missing: allow",
    )


def _other_kind(where: str, name: str, value: Any, kind: Kind, form: Format) -> DataError:
    # A column is boolean only if all of it is; of the other kinds nine tenths are enough.
    others = "the column is" if kind == "boolean" else "the column's other values are"
    problem = (
        f"column {name!r} holds {value!r}; {others} of kind {kind}; allowed:"
        f" {_allowed(kind, form)}, or nothing"
    )
    remedy = (
        "Correct it, name it under processor.missing_values, or name the column under"
        " processor.categorical"
    )
    return DataError(where, problem, remedy)


def refuse_others(name: str, values: Collection[Any], kind: Kind, form: Format) -> None:
    """Raise an error for a column that the settings name as of a kind of which no value is."""
    if values and all(form.read(value, kind) is None for value in values):
        setting_name = {"date": "dates"}.get(kind, kind)
        raise DataError(
            f"recipe.processor.{setting_name}",
            f"no value of column {name!r} is {_allowed(kind, form)}, such as"
            f" {str(next(iter(values)))[:40]!r}",
            "Remove it there",
        )


def _allowed(kind: Kind, form: Format) -> str:
    if kind == "numeric":
        signs = {"": "", ".": " with a decimal point", ",": " with a decimal comma"}[form.decimal]
        return f"a number{signs}" + (f" and {form.unit!r}" if form.unit else "")
    if kind == "date":
        order = {None: "", True: " or 31/05/2024", False: " or 05/31/2024"}[form.day_first]
        return f"a date such as 2024-05-31{order}, or seconds since 1970"
    return {"boolean": "true or false"}.get(kind, "a time such as 9:30")


def numbers_in(kind: Kind, values: Values, first: float) -> dict[str, Values]:
    """Return the numbers made of a column's values, each (N,), by name.

    Args:
        kind: What the values are.
        values: (N,), NaN where there is none; of dates, seconds since 1970.
        first: Of dates, the seconds from which they are counted.
    """
    if kind != "date":
        return {"value": values}
    # What becomes of NaN as a date is undefined, so it is put back at the end.
    moments = np.where(np.isnan(values), 0.0, values).astype("datetime64[s]")
    days = moments.astype("datetime64[D]")
    years = moments.astype("datetime64[Y]")
    turn = 2 * np.pi * (days - years.astype("datetime64[D]")).astype(np.float64) / 365.25
    found = {
        "year": years.astype(np.float64) + 1970,
        "month": moments.astype("datetime64[M]").astype(np.float64) % 12 + 1,
        # Monday is 0; the first of January 1970 was a Thursday.
        "day_of_week": (days.astype(np.float64) + 3) % 7,
        # The last of December is next to the first of January only on a circle.
        "day_of_year_sin": np.sin(turn),
        "day_of_year_cos": np.cos(turn),
        "seconds": values - first,
    }
    return {name: np.where(np.isnan(values), np.nan, each) for name, each in found.items()}
