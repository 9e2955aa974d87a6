"""The values of one column, each looked at once: which are numbers, dates and times, and so what
kind the column is of."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from typing import Any

from groundup.media.column_format import AmbiguousColumn, Style
from groundup.media.table_values import Kind, as_boolean, as_number
from groundup.media.written_dates import (
    WrittenDate,
    lacks_year_or_day,
    parse_compact,
    parse_date,
    parse_time,
)
from groundup.media.written_numbers import (
    CURRENCIES,
    MEASURES,
    TIME_UNITS,
    Written,
    clean,
    parse_number,
)

__all__ = ["ColumnValues"]

# Of a column's values are of a kind: then the rest are mistakes.
_ENOUGH = 0.9
# Fewer different numbers than this may be the codes of categories, next to a word among them.
_NUMBERS = 10
# Different words among many numbers that look like a mark for what is missing.
_MARKS = 3
_LEADING_ZERO = re.compile(r"\s*0\d+\s*")
_BOUND = re.compile(r"\s*([<>≤≥]=?\s*\d[\d.,]*|\d[\d.,]*\s*\+)\s*")
# Seconds and milliseconds of the years 2001 to 2096.
_MOMENTS = {"seconds": (1e9, 4e9), "milliseconds": (1e12, 4e12)}
_KINDS: tuple[Kind, ...] = ("numeric", "date", "time")


class ColumnValues:
    """The values of one column, each looked at once."""

    def __init__(self, name: str, counts: Mapping[Any, int], style: Style) -> None:
        self.name = name
        self.counts = counts
        self.style = style
        self.kind: Kind = "categorical"
        self.notes: list[str] = []
        self.gone: Counter[str] = Counter()
        self.plain: list[Any] = []
        self.numbers: dict[str, Written] = {}
        self.dates: dict[Any, WrittenDate | None] = {}
        self.times: dict[Any, int] = {}
        self.others: list[Any] = []
        self.shapes: Counter[str] = Counter()
        for value in counts:
            found = as_number(value)
            if found is None:
                self._look(value)
            elif found != found or (style.missing and str(value).strip() in style.missing):
                self.gone[_mark(value)] += counts[value]
            else:
                self.plain.append(value)

    def _look(self, value: Any) -> None:
        if not isinstance(value, str):
            if isinstance(value, time | timedelta):
                self.times[value] = 0
            elif isinstance(value, date):
                self.dates[value] = None
            else:
                self.others.append(value)
            return
        if value.strip() in self.style.missing:
            self.gone[value.strip()] += self.counts[value]
            return
        text = clean(value)
        # A word without a digit is none of these.
        if not any(map(str.isdigit, text)):
            self.others.append(value)
        elif "Q" in text.upper() and (quarter := parse_date(text)) is not None:
            self.dates[value] = quarter
        elif (number := parse_number(text)) is not None and number.separators is not None:
            self.numbers[value] = number
            self.shapes[number.separators] += 1
        elif (day := parse_date(text)) is not None:
            self.dates[value] = day
        elif (clock := parse_time(text)) is not None:
            self.times[value] = clock[1]
        else:
            self.others.append(value)

    def find_kind(self) -> Kind:
        """Return what most of the values are."""
        present = [*self.plain, *self.numbers, *self.dates, *self.times, *self.others]
        if not present:
            return "categorical"
        only_plain = len(self.plain) == len(present)
        # A column of 0 and 1 is numeric; true and false have to be spelled somewhere.
        words = not only_plain or any(isinstance(value, bool) for value in present)
        if words and all(as_boolean(value) is not None for value in present):
            return "boolean"
        if only_plain and all(parse_compact(value) for value in self.plain):
            return "date"
        if self._names_something():
            return "categorical"
        self._refuse_bounds()
        self._take_durations()
        self._take_one_unit()
        total = self.count(present)
        shares = {
            "numeric": self.count([*self.plain, *self.numbers]) / total,
            "date": self.count(self.dates) / total,
            "time": self.count(self.times) / total,
        }
        best = max(_KINDS, key=lambda kind: shares[kind])
        if shares[best] >= _ENOUGH:
            self._note_moments()
            return best
        if shares[best] > 0.5:
            self._doubt(best, shares[best], present)
        else:
            self._note_digits(present)
        return "categorical"

    def _refuse_bounds(self) -> None:
        """Refuse a column of numbers in which some are bounds, such as <5 or >100."""
        bounds = [v for v in self.others if isinstance(v, str) and _BOUND.fullmatch(v)]
        numbers = self.count([*self.plain, *self.numbers])
        if bounds and numbers > self.count(self.others) - self.count(bounds) and numbers:
            raise AmbiguousColumn(
                f"column {self.name!r} holds {bounds[0]!r}, a bound, among numbers",
                "Write a number in its place, name such values under {section}.missing_values, or"
                " the column under processor.categorical",
            )

    def _take_durations(self) -> None:
        """Take 20m for a time where 5h 20m is there as well."""
        units = {number.unit for number in self.numbers.values()}
        if (
            units
            and units <= TIME_UNITS
            and (any(not n for n in self.times.values()) or len(units) > 1)
        ):
            self.times |= dict.fromkeys(self.numbers, 0)
            self.numbers = {}

    def _note_moments(self) -> None:
        """Say what whole numbers may be besides numbers."""
        numbers = [value for value in map(as_number, self.plain) if value is not None]
        if not all(n == int(n) for n in numbers):
            return
        if len(numbers) > 1 and all(190001 <= n <= 210012 and 1 <= n % 100 <= 12 for n in numbers):
            self.say("whole numbers that look like a year and a month: for dates write 2021-05")
        if any(abs(n) > 2**53 for n in numbers):
            self.say(
                "whole numbers so large that neighbours are read as one: if they are names, put"
                " the column under processor.categorical, or under data.ignore"
            )
        for unit, (low, high) in _MOMENTS.items():
            if numbers and all(low < n < high for n in numbers):
                how = "name it under processor.dates"
                if unit == "milliseconds":
                    how = f"divide it by 1000 and {how}"
                self.say(f"whole numbers that look like {unit} since 1970: to read dates, {how}")

    def _note_digits(self, present: list[Any]) -> None:
        """Say that what looks like amounts, but is none that is known, is read as categories."""
        texts = [(value, clean(value)) for value in present if isinstance(value, str)]
        like = [
            value
            for value, text in texts
            if (text[:1].isdigit() and not text.isalnum())
            or (value.startswith("&") and ";" in value)
            or text.startswith(("[", "{"))
            or lacks_year_or_day(text)
        ]
        if self.count(like) > 0.5 * self.count(present):
            self.say(
                f"values such as {like[0]!r} are no numbers, dates or times: read as categories"
            )
        joined = [value for value, _ in texts if "|" in value or ";" in value.strip("; ")]
        joined = [value for value in joined if "&" not in value]  # &nbsp; of web pages
        parts = [part.strip() for value in joined for part in re.split(r"[|;]", value)]
        # parts that come in several of the different values
        if self.count(joined) > 0.1 * self.count(present) and len(set(parts)) < len(parts):
            self.say(
                f"values such as {joined[0]!r} look like several in one cell: each is read as one"
                " category; to use the parts, make a column of each"
            )

    def _names_something(self) -> bool:
        """Whether the numbers are names: whole, some with a zero in front."""
        zeros = [v for v in self.plain if isinstance(v, str) and _LEADING_ZERO.fullmatch(v)]
        if not zeros or any("." in str(value) for value in self.plain) or self.numbers:
            return False
        self.say(
            f"{self.count(zeros):,} values begin with a zero, such as {zeros[0]!r}: read as"
            f" categories, as names are; to read numbers, name it under processor.numeric"
        )
        return True

    def _take_one_unit(self) -> None:
        """Leave as numbers those of one unit."""
        units: Counter[str] = Counter()
        for value, number in self.numbers.items():
            units[number.unit] += self.counts[value]
        own = [unit for unit, _ in units.most_common() if unit]
        known = CURRENCIES | MEASURES | {"%"}
        if len(own) > 1 and all(unit in known for unit in own):
            one, two = (next(v for v, n in self.numbers.items() if n.unit == u) for u in own[:2])
            raise AmbiguousColumn(
                f"column {self.name!r} holds {one!r} and {two!r}, numbers of two units",
                "Write all of them in one, or name the column under processor.categorical",
            )
        if len(own) > 1:
            # Letters behind numbers that differ, as in 12A and 12B, are names.
            self.others += [v for v, number in self.numbers.items() if number.unit]
            self.numbers = {v: n for v, n in self.numbers.items() if not n.unit}

    def _doubt(self, kind: str, share: float, present: list[Any]) -> None:
        """Say, or refuse, that a column is read as categories though most of it is of another
        kind."""
        known: Mapping[str, Iterable[Any]] = {
            "numeric": [*self.plain, *self.numbers],
            "date": self.dates,
            "time": self.times,
        }
        rest = {v.strip() if isinstance(v, str) else v for v in set(present) - set(known[kind])}
        what = {"numeric": "numbers", "date": "dates", "time": "times"}[kind]
        shown = ", ".join(repr(value) for value in sorted(rest, key=str)[:_MARKS])
        problem = f"{share:.0%} of its values are {what}, {shown}"
        if len(rest) <= _MARKS and len(list(known[kind])) >= _NUMBERS:
            verb = "is" if len(rest) == 1 else "are"
            raise AmbiguousColumn(
                f"column {self.name!r}: {problem} {verb} not",
                f"Name what stands for no value under {{section}}.missing_values, such as"
                f" [{shown}], or the column under processor.categorical",
            )
        verb = "is" if len(rest) == 1 else "and others are"
        self.say(
            f"{problem} {verb} not: read as categories; to read {what}, write all of them alike,"
            " and name what stands for no value under processor.missing_values"
        )

    @property
    def commas(self) -> bool:
        """Whether a number has a comma, or dots between thousands."""
        shapes = self.shapes
        return bool(
            shapes["decimal ,"] + shapes["thousands ,"] + shapes[", ?"] + shapes["thousands ."]
        )

    def count_dots(self) -> None:
        """Look at the dots of plain numbers."""
        if self.kind == "numeric":
            for value in self.plain:
                if isinstance(value, str) and "." in value:
                    number = parse_number(clean(value))
                    self.shapes[(number and number.separators) or "decimal ."] += 1

    @property
    def votes(self) -> dict[str, int]:
        """How many values say that each sign is the decimal one."""
        if self.kind != "numeric":
            return {",": 0, ".": 0}
        count = self.shapes
        return {
            ",": count["decimal ,"] + count["thousands ."],
            ".": count["decimal ."] + count["thousands ,"],
        }

    def say(self, text: str) -> None:
        self.notes.append(f"column {self.name!r}: {text}")

    def count(self, values: Iterable[Any]) -> int:
        return sum(self.counts[value] for value in values)


def _mark(value: Any) -> str:
    """Return what stands for a missing value; nothing where that is nothing."""
    if isinstance(value, str):
        return value.strip()
    return "inf" if value in (math.inf, -math.inf) else ""
