"""What decides the side of a row besides its content: the group that it belongs to, and its time,
in columns that the settings name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.files import Record
from groundup.data.reading.source import Source
from groundup.media.column_format import AmbiguousColumn
from groundup.media.find_format import find_formats
from groundup.media.table_values import as_category, as_number

__all__ = ["Placement", "group_of", "times_of"]


class Placement:
    """The group and the time of each row that was read, by where it was read.

    Args:
        source: Its ``group_column`` and ``time_column`` say which columns.

    Attributes:
        columns: The columns that every row must have.
    """

    def __init__(self, source: Source) -> None:
        named = (source.group_column, source.time_column)
        self.columns = tuple(name for name in named if name is not None)
        self._group_column, self._time_column = named
        self._groups: dict[str, str] = {}
        self._times: dict[str, Any] = {}
        self._read: dict[str, float] = {}

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass rows on, the group and the time of each noted.

        Raises:
            DataError: If a row lacks the column, or has no group.
        """
        for record in records:
            for name in self.columns:
                if name not in record.fields:
                    known = ", ".join(record.fields)
                    hint = did_you_mean(name, record.fields)
                    raise DataError(
                        record.origin,
                        f"there is no column {name!r}; {hint}columns: {known}",
                        "Correct data.group_column or data.time_column",
                    )
            if self._group_column is not None:
                value = record.fields[self._group_column]
                self._groups[record.origin] = group_of(value, record.origin, self._group_column)
            if self._time_column is not None:
                self._times[record.origin] = record.fields[self._time_column]
            yield record

    def keys(self, origin: str) -> tuple[str, ...]:
        """Return the group of a row as what it shares with others; empty where none is asked
        for."""
        return (f"group {self._groups[origin]}",) if self._group_column is not None else ()

    def time(self, origin: str) -> float:
        """Return the time of a row, all of which have been read by now.

        Raises:
            DataError: If one is no time.
        """
        if self._time_column is None:
            return 0.0
        if not self._read:
            places = list(self._times)
            found = times_of(list(self._times.values()), places, self._time_column)
            self._read = dict(zip(places, found, strict=True))
        return self._read[origin]


def group_of(value: Any, where: str, column: str) -> str:
    """Return the name of a row's group.

    Raises:
        DataError: If it has none.
    """
    found = as_category(value)
    # rows without a group would all be one group, held out together or not at all
    if found == "":
        raise DataError(where, f"group_column {column!r} is empty", "Give each row its group")
    return found


def times_of(values: Sequence[Any], origins: Sequence[str], column: str) -> list[float]:
    """Return the times of all rows: all numbers, all dates in seconds since 1970, or all times of
    the day, as the column is written.

    Raises:
        DataError: Naming the first row that is none, or not what the others are; or if the column
            can be read in two ways.
    """
    texts = [value if isinstance(value, Hashable) else str(value) for value in values]
    try:
        found = find_formats({column: Counter(texts)})[column]
    except AmbiguousColumn as error:
        remedy = "Write its dates as in ISO 8601, such as 2024-02-01"
        where = origins[0] if origins else column
        raise DataError(where, f"time_column {column!r}: {error.problem}", remedy) from None
    times = []
    for origin, value in zip(origins, texts, strict=True):
        time = found.format.read(value, found.kind)
        # the year 2021 next to 2020-05-01 would be half an hour after 1970
        bare = found.kind == "date" and not found.format.compact and as_number(value) is not None
        if bare or time is None or math.isnan(time):
            raise DataError(
                origin,
                f"time_column {column!r} holds {value!r}; allowed: a number in every row, or a date"
                " in every row",
                "Correct it, or name another column",
            )
        times.append(time)
    return times
