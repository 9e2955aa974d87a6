"""How the cells of a column are written, and what each means by that: what the decimal sign is,
whether the day comes before the month.

``find_format`` finds it in the training split; every other row is read by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import time, timedelta
from typing import Any, Literal

from groundup.media.table_values import Kind, as_boolean, as_date, as_number, is_missing
from groundup.media.written_dates import parse_compact, parse_date, parse_time
from groundup.media.written_numbers import clean, parse_number

__all__ = ["AmbiguousColumn", "Format", "Style"]


class AmbiguousColumn(Exception):
    """A column that can be read in two ways: what it holds, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Style:
    """What is known of how a table is written; None is found.

    Attributes:
        decimal: The decimal sign.
        day_first: Whether 1/2/2024 is in February.
        missing: Texts that stand for no value, next to those that always do.
        separator: What was between the cells: with semicolons a comma is often the decimal sign.
    """

    decimal: Literal[".", ","] | None = None
    day_first: bool | None = None
    missing: tuple[str, ...] = ()
    separator: str = ","


@dataclass(frozen=True)
class Format:
    """How the values of a column are written.

    Attributes:
        decimal: The decimal sign; empty where no number showed one.
        unit: What stands at all numbers, such as ``%``, ``$`` or ``kg``.
        day_first: Whether 1/2/2024 is in February; None where no date is written so.
        compact: Dates are eight digits.
        missing: As of ``Style``.
    """

    decimal: str = ""
    unit: str = ""
    day_first: bool | None = None
    compact: bool = False
    missing: tuple[str, ...] = ()

    def read(self, value: Any, kind: Kind) -> float | None:
        """Return the number that a value means, NaN where it is missing, None where it is not of
        the kind. Dates are seconds since 1970, times and durations seconds."""
        if self.missing and isinstance(value, str) and value.strip() in self.missing:
            return math.nan
        if kind == "boolean":
            return as_boolean(value)
        if kind == "date":
            return self._date(value)
        found = as_number(value)
        if found is not None:
            # as_number reads 1.234 by its dot, which may stand between thousands; or lacks the unit
            if isinstance(value, str) and found == found and (self.decimal == "," or self.unit):
                return self._number(value)
            return found
        if kind == "time":
            return _seconds(value)
        return self._number(value) if isinstance(value, str) else None

    def _number(self, text: str) -> float | None:
        written = parse_number(clean(text))
        if written is None:
            return None
        if written.unit != self.unit and not (written.unit == "" and self.unit != "%"):
            return 0.0 if written.value(self.decimal or ".") == 0.0 else None
        if not self.decimal and written.separators in (", ?", "thousands ,", "decimal ,"):
            return None  # no number of the training split says what a comma is
        return written.value(self.decimal or ".")

    def _date(self, value: Any) -> float | None:
        if self.compact and (found := parse_compact(value)) is not None:
            return found
        if not isinstance(value, str) or is_missing(value):
            return as_date(value)
        written = parse_date(clean(value))
        if written is None:
            return as_date(value)
        if written.numbers and self.day_first is None:
            return None
        return written.read(day_first=bool(self.day_first))


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    found = parse_time(clean(value)) if isinstance(value, str) else None
    return None if found is None else found[0]
