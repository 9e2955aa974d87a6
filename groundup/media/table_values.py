"""Columns of a table: what kind of values they hold, and what each value means. A row is a view of
the columns."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

__all__ = [
    "Kind",
    "Row",
    "as_boolean",
    "as_category",
    "as_date",
    "as_number",
    "is_missing",
    "kind_of",
]

Kind = Literal["numeric", "categorical", "boolean", "date"]
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})
_TRUTH = dict.fromkeys(("true", "t", "yes", "y", "1"), 1.0)
_TRUTH |= dict.fromkeys(("false", "f", "no", "n", "0"), 0.0)
# The first second of the year 10000.
_LATEST = 253_402_300_800.0
# Of a column's values are of a kind: then the rest are mistakes.
_ENOUGH = 0.9


@dataclass(frozen=True, slots=True)
class Row(Mapping[str, Any]):
    """One row of a table kept as columns, read like a dictionary of column -> raw value.

    Attributes:
        columns: The values of every column, shared by all rows.
        number: Which of them are this row's.
        origin: Where it was read (file, row), for messages.
    """

    columns: Mapping[str, Sequence[Any]]
    number: int
    origin: str = ""

    def __getitem__(self, column: str) -> Any:
        return self.columns[column][self.number]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, not a number, infinite, or such words as ``NA`` and
    ``null``.

    In a categorical column the words are values like any other; see ``as_category``.
    """
    if isinstance(value, str):
        return value.strip().lower() in _MISSING
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def as_number(value: Any) -> float | None:
    """Return the number that a value or text means, NaN where it is missing or infinite, None where
    it means none."""
    if is_missing(value):
        return math.nan
    # Python reads 1_000 as a number; in data it is a name.
    if isinstance(value, date) or (isinstance(value, str) and "_" in value):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else math.nan


def as_boolean(value: Any) -> float | None:
    """Return 1 for true or yes, 0 for false or no, NaN where it is missing, None for anything
    else."""
    if is_missing(value):
        return math.nan
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    return float(value) if value == 0 or value == 1 else None


def as_date(value: Any) -> float | None:
    """Return the seconds since 1970 of a date, an ISO 8601 text or such seconds; NaN where missing,
    None for others.

    A time without a zone is taken as UTC. Numbers beyond the year 9999, such as milliseconds, are
    no dates.
    """
    if isinstance(value, str) and not is_missing(value):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        # Otherwise Python would take it as local time, and a run would depend on the machine.
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    # Milliseconds since 1970 would be dates of the year 50000.
    found = as_number(value)
    return None if found is not None and abs(found) >= _LATEST else found


def as_category(value: Any) -> str:
    """Return the text of a category, the same for 3, 3.0 and "3"; empty where the value is
    missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # A column with gaps is read as floating-point numbers, and its 3 as 3.0.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def kind_of(counts: Mapping[Any, int]) -> Kind:
    """Return the kind of a column from how often each value occurs.

    Nine tenths of the values have to be numbers, or dates, for a column to be numeric or of dates:
    what is none of them is then a mistake in the data. A column is boolean only if all of it is.
    """
    present = {value: count for value, count in counts.items() if not is_missing(value)}
    total = sum(present.values())
    # A column of 0 and 1 is numeric; true and false have to be spelled somewhere.
    words = any(isinstance(value, bool) or as_number(value) is None for value in present)
    if words and all(as_boolean(value) is not None for value in present):
        return "boolean"
    if total and _share(present, as_number, total) >= _ENOUGH:
        return "numeric"
    if total and _share(present, as_date, total) >= _ENOUGH:
        return "date"
    return "categorical"


def _share(counts: Mapping[Any, int], read: Any, total: int) -> float:
    return sum(count for value, count in counts.items() if read(value) is not None) / total
