"""The kind and format of a table's columns, found from all of their values, and said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from groundup.media.column_format import AmbiguousColumn, Format, Style
from groundup.media.column_values import ColumnValues
from groundup.media.table_values import Kind, as_number
from groundup.media.written_dates import WrittenDate, parse_compact
from groundup.media.written_numbers import clean, parse_number

__all__ = ["Found", "find_formats", "look_at"]

_ALONE = Style()


@dataclass
class Found:
    """What was found of a column: its kind and format, and what there is to say of it."""

    kind: Kind
    format: Format = field(default_factory=Format)
    notes: list[str] = field(default_factory=list)


def find_formats(
    columns: Mapping[str, Mapping[Any, int]],
    style: Style = _ALONE,
    kinds: Mapping[str, Kind] | None = None,
) -> dict[str, Found]:
    """Return the kind and format of each column.

    Nine tenths of the values have to be numbers, dates or times for a column to be of that kind:
    what is none of them is then a mistake in the data. A column is boolean only if all of it is.
    What one column leaves open is decided as the others of the table show.

    Args:
        columns: How often each value of a column occurs.
        style: What is known already.
        kinds: The kinds of columns that are known.

    Raises:
        AmbiguousColumn: If a column can be read in two ways.
    """
    given = kinds or {}
    seen = [ColumnValues(name, counts, style) for name, counts in columns.items()]
    for each in seen:
        each.kind = given.get(each.name) or each.find_kind()
    if any(each.commas for each in seen):
        # Only then dots say anything; to look at them all would cost time.
        for each in seen:
            each.count_dots()
    return {
        each.name: _find_format(each, [other for other in seen if other is not each])
        for each in seen
    }


def look_at(name: str, counts: Mapping[Any, int]) -> Found:
    """Return the kind and format of one column by itself, to describe it: what would be ambiguous
    is a note."""
    notes: list[str] = []
    for style in (_ALONE, Style(decimal=".", day_first=True)):
        try:
            found = find_formats({name: counts}, style)[name]
        except AmbiguousColumn as error:
            notes = notes or [f"{error.problem}. {error.remedy.format(section='processor')}"]
        else:
            return replace(found, notes=notes or found.notes)
    return Found("categorical", notes=notes)


def _find_format(column: ColumnValues, others: Sequence[ColumnValues]) -> Found:
    form = Format(missing=column.style.missing)
    if column.kind == "numeric":
        unit = next((number.unit for number in column.numbers.values() if number.unit), "")
        form = replace(form, decimal=_find_decimal(column, others), unit=unit)
        _refuse_bare(column, unit)
    elif column.kind == "date":
        compact = not column.dates and bool(column.plain) and all(map(parse_compact, column.plain))
        form = replace(form, day_first=_find_order(column, others), compact=compact)
    elif column.kind == "time":
        _refuse_mixed_times(column)
    _describe(column, form)
    return Found(column.kind, form, column.notes)


# -------------------------------------------------------------------------------- numbers and times
def _find_decimal(column: ColumnValues, others: Sequence[ColumnValues]) -> str:
    """Return the decimal sign, empty where nothing says what it is."""
    if column.style.decimal is not None:
        return column.style.decimal
    votes = column.votes
    shapes = column.shapes
    if votes[","] and votes["."]:
        _refuse_signs(column, "decimal ,", "thousands .", "decimal .", "thousands ,")
    elsewhere = {sign for other in others for sign, count in other.votes.items() if count}
    by_others = elsewhere.pop() if len(elsewhere) == 1 else ""
    semicolons = column.style.separator == ";"
    if votes[","]:
        if shapes[", ?"] and by_others != "," and not semicolons:
            _refuse_signs(column, ", ?", "decimal ,", "thousands .")
        return ","
    if votes["."]:
        return "."
    if shapes[", ?"]:
        if semicolons and not by_others:
            _refuse_signs(column, ", ?")
        return by_others or "."
    if shapes[". ?"] and by_others == ",":
        _refuse_signs(column, ". ?")
    dots = shapes[". ?"] or any(isinstance(v, str) and "." in v for v in column.plain)
    return "." if dots else ""


def _refuse_signs(column: ColumnValues, *shapes: str) -> None:
    shown: dict[str, str] = {}
    for value in [*column.numbers, *column.plain]:
        number = parse_number(clean(value)) if isinstance(value, str) else None
        if number is not None and number.separators in shapes:
            shown.setdefault(str(number.separators), value)
    texts = " and ".join(map(repr, list(shown.values())[:2]))
    raise AmbiguousColumn(
        f"column {column.name!r} holds {texts}, where the same sign can be the decimal one or stand"
        " between thousands",
        'Say which is the decimal sign: {section}.decimal: "." or ","',
    )


def _refuse_bare(column: ColumnValues, unit: str) -> None:
    """Refuse a column in which 45 and 45% both occur."""
    bare = [value for value in column.plain if as_number(value)]
    bare += [value for value, number in column.numbers.items() if not number.unit]
    if unit == "%" and bare:
        marked = next(value for value, number in column.numbers.items() if number.unit)
        raise AmbiguousColumn(
            f"column {column.name!r} holds {marked!r} and {bare[0]!r}: with and without %",
            "Write all of them with the sign, or none; or name the column under"
            " processor.categorical",
        )


def _refuse_mixed_times(column: ColumnValues) -> None:
    """Refuse a column in which 9:30 and 1:02:03 both occur."""
    shown = {parts: value for value, parts in column.times.items() if parts}
    if len(shown) > 1:
        raise AmbiguousColumn(
            f"column {column.name!r} holds {shown[1]!r} and {shown[2]!r}: the first can be hours"
            " and minutes or minutes and seconds",
            "Write all of them with hours, or name the column under processor.categorical",
        )


# -------------------------------------------------------------------------------------------- dates
def _find_order(column: ColumnValues, others: Sequence[ColumnValues]) -> bool | None:
    """Return whether the day comes before the month; None where no date is written so."""
    written = {v: day for v, day in column.dates.items() if day is not None and day.numbers}
    if not written:
        return None
    if column.style.day_first is not None:
        return column.style.day_first
    shown = {first: value for value, day in written.items() for first in _orders(day)}
    if len(shown) == 2:
        raise AmbiguousColumn(
            f"column {column.name!r} holds {shown[True]!r} and {shown[False]!r}: in one the day"
            " comes first, in the other the month",
            "Write all dates in one way, such as 2024-01-31",
        )
    # 23-05-17 may be of 2017 or of 2023.
    years = any(day.short and day.sign == "-" for day in written.values())
    if False in shown or (shown and not years):
        return True in shown
    elsewhere = {first for o in others for day in o.dates.values() if day for first in _orders(day)}
    if len(elsewhere) == 1 and not years:
        return elsewhere.pop()
    example = next(iter(written))
    raise AmbiguousColumn(
        f"column {column.name!r} holds dates such as {example!r}, but no value says which of the"
        " numbers is the day",
        "Set {section}.day_first: true or false, or write them as 2024-01-31",
    )


def _orders(day: WrittenDate) -> list[bool]:
    """Return whether the day comes first, where a date says so."""
    if not day.numbers:
        return []
    # 1.2.2024 is written so where the day comes first.
    if day.numbers[0] > 12 or (day.sign == "." and day.numbers[1] <= 12):
        return [True]
    return [False] if day.numbers[1] > 12 else []


# ---------------------------------------------------------------------------- what there is to say
def _describe(column: ColumnValues, form: Format) -> None:
    """Say how many values are written otherwise than plainly, by an example, and how many are
    missing."""
    parts = []
    written: Iterable[Any] = {
        "numeric": column.numbers,
        "date": [v for v, day in column.dates.items() if day and not _is_iso(v)],
        "time": [value for value in column.times if isinstance(value, str)],
        "boolean": column.others,
    }.get(column.kind, ())
    # The longest, which shows most.
    example = max(written, key=lambda value: len(str(value)), default=None)
    found = None if example is None else form.read(example, column.kind)
    if form.compact:
        parts.append(f"dates of eight digits, such as {column.plain[0]!r}")
    elif found is not None:
        what = {"numeric": "numbers", "date": "dates", "time": "seconds"}.get(
            column.kind, "yes or no"
        )
        shown = _show(found, column.kind)
        parts.append(
            f"{what}; {column.count(written):,} written like {example!r} for {shown}"
            f"{_ways(column, form)}"
        )
    marks = {mark: count for mark, count in column.gone.items() if mark}
    if marks and column.kind != "categorical":
        listed = ", ".join(f"{mark!r} {count:,}" for mark, count in list(marks.items())[:5])
        parts.append(f"{column.gone.total():,} missing ({listed})")
    if parts:
        column.say("; ".join(parts))


def _ways(column: ColumnValues, form: Format) -> str:
    """Return what is special in how the values of a column are written."""
    found = []
    if column.kind == "numeric":
        bodies = [number.body for number in column.numbers.values()]
        signs = {character for body in bodies for character in body if not character.isdigit()}
        if groups := sorted(signs - {form.decimal or "."}):
            found.append("thousands separator " + " ".join(map(repr, groups)))
        if form.decimal == "," and "," in signs:
            found.append("decimal comma")
        if form.unit:
            found.append(f"unit {form.unit!r}")
    elif form.day_first is not None:
        found.append("day first" if form.day_first else "month first")
    return f" ({', '.join(found)})" if found else ""


def _show(found: float, kind: Kind) -> str:
    if kind != "date":
        return f"{found:.10g}"
    shown = datetime.fromtimestamp(found, UTC).replace(tzinfo=None).isoformat(" ")
    return shown.removesuffix(" 00:00:00")


def _is_iso(value: Any) -> bool:
    with contextlib.suppress(ValueError):
        datetime.fromisoformat(str(value).strip())
        return True
    return False
