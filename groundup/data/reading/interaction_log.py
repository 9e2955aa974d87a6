"""Interactions as arrays: who did what, when, and how it was rated; what is wrong in a row is named
with its file and place.

Legend: R interactions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.data.reading.interaction_files import Rows
from groundup.media.column_format import AmbiguousColumn
from groundup.media.find_format import find_formats
from groundup.media.table_values import as_category, as_number

__all__ = ["Log", "LogColumns", "read_columns_of", "read_log"]

_category = lru_cache(maxsize=1 << 20)(as_category)


@dataclass(frozen=True)
class LogColumns:
    """The names of the columns of interactions; None where there is none.

    Attributes:
        range: The least and the highest rating that is allowed.
    """

    user: str
    item: str
    rating: str | None = None
    time: str | None = None
    range: tuple[float, float] | None = None


@dataclass
class Log:
    """All interactions that can be read, sorted by user, then time, then the order of the rows.

    Attributes:
        user_ids: The users, in the order in which they come first.
        item_ids: The items, likewise.
        users: (R,) the place of each user among ``user_ids``.
        items: (R,) likewise.
        ratings: (R,), or None.
        times: (R,) in seconds, or None.
        rows: (R,) the number of each row among those that were read.
        left_out: How many rows are not used, by the reason.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64] | None
    times: NDArray[np.float64] | None
    rows: NDArray[np.int64]
    left_out: Counter[str] = field(default_factory=Counter)

    def keep(self, kept: NDArray[np.bool_], why: str) -> None:
        """Leave out the interactions that are not kept, counted under ``why``."""
        self.left_out[why] += int((~kept).sum())
        self.users = self.users[kept]
        self.items = self.items[kept]
        self.rows = self.rows[kept]
        if self.ratings is not None:
            self.ratings = self.ratings[kept]
        if self.times is not None:
            self.times = self.times[kept]


@dataclass(frozen=True)
class _Problem:
    row: int
    kind: str
    problem: str
    remedy: str


def read_log(rows: Rows, columns: LogColumns, *, skip: bool) -> Log:
    """Return the interactions of a table.

    Args:
        rows: The table.
        columns: What its columns are.
        skip: Leave out and count rows that cannot be used, instead of stopping at the first.

    Raises:
        DataError: Naming the file and row of the first that cannot be used, and how many others
            there are of each kind.
    """
    users = [_category(value) for value in rows.columns[columns.user]]
    items = [_category(value) for value in rows.columns[columns.item]]
    problems = list(_without_name(users, "user", columns.user))
    problems += _without_name(items, "item", columns.item)
    ratings = None
    if columns.rating is not None:
        ratings = _ratings(rows.columns[columns.rating], columns, problems)
    times = None
    if columns.time is not None:
        times = _times(rows.columns[columns.time], columns.time, problems)
    # Of a row with several mistakes the first counts.
    bad: dict[int, _Problem] = {}
    for each in problems:
        bad.setdefault(each.row, each)
    if bad and not skip:
        raise _first_of(bad, rows)
    log = _sort(users, items, ratings, times, sorted(set(range(len(rows))) - bad.keys()))
    log.left_out += rows.left_out
    log.left_out += Counter(each.kind for each in bad.values())
    if not len(log.users):
        raise DataError("data.path", "no interaction can be used", "Check the columns that it has")
    return log


def _without_name(names: Sequence[str], what: str, column: str) -> Iterator[_Problem]:
    for row, name in enumerate(names):
        if not name:
            yield _Problem(
                row,
                f"rows without {what}",
                f"has no {what}: {column!r} is empty",
                "Fill it in, or remove the row",
            )


def _first_of(bad: Mapping[int, _Problem], rows: Rows) -> DataError:
    first = bad[min(bad)]
    # Who has a thousand such rows does not want to meet them one by one.
    counts = Counter(each.kind for each in bad.values())
    counts[first.kind] -= 1
    others = ", ".join(f"{count:,} {kind}" for kind, count in (+counts).items())
    problem = first.problem
    if others:
        problem += f" (there are others: {others})"
    remedy = f"{first.remedy}; or set data.on_unreadable: skip to leave such rows out"
    return DataError(rows.origins[first.row], problem, remedy)


def _ratings(
    values: Sequence[Any], columns: LogColumns, problems: list[_Problem]
) -> NDArray[np.float64]:
    found = np.full(len(values), math.nan)
    low, high = columns.range or (-math.inf, math.inf)
    for row, value in enumerate(values):
        number = as_number(value)
        if number is None or math.isnan(number):
            problem = f"rating {value!r} is not a number"
            problems.append(_Problem(row, "ratings that are no numbers", problem, "Correct it"))
        elif not low <= number <= high:
            problem = f"rating {number:g} is out of range; allowed: {low:g} to {high:g}"
            remedy = "Correct it, or data.rating_range"
            problems.append(_Problem(row, "ratings out of range", problem, remedy))
        else:
            found[row] = number
    return found


def _times(values: Sequence[Any], column: str, problems: list[_Problem]) -> NDArray[np.float64]:
    """Return the times in seconds: all numbers, or all dates."""
    numbers = [as_number(value) for value in values]
    dates = [row for row, number in enumerate(numbers) if number is None]
    found = np.array([math.nan if number is None else number for number in numbers])
    missing = [row for row, number in enumerate(numbers) if number is not None and number != number]
    if len(dates) + len(missing) == len(values):
        read = _dates(values, column)
        found = np.array(read, dtype=np.float64)
        missing = [row for row, seconds in enumerate(read) if seconds != seconds]
        dates = []
    for row in missing:
        problem = f"time {values[row]!r} is none"
        problems.append(_Problem(row, "rows without a time", problem, "Write a number or a date"))
    if dates:
        # Whichever is rarer is the mistake.
        others = [row for row in range(len(values)) if numbers[row] is not None]
        odd, usual = (dates, "numbers") if len(dates) <= len(others) else (others, "dates")
        for row in odd:
            problem = f"time {values[row]!r} is written otherwise than most, which are {usual}"
            remedy = "Write all times in one way: seconds since 1970, or dates such as 2024-01-31"
            problems.append(_Problem(row, "times in another format", problem, remedy))
        if odd is others:
            read = _dates([values[row] for row in dates], column)
            found[:] = math.nan
            found[dates] = read
    return found


def _dates(values: Sequence[Any], column: str) -> list[float]:
    try:
        form = find_formats({column: Counter(values)}, kinds={column: "date"})[column].format
    except AmbiguousColumn as error:
        remedy = error.remedy.partition(", or write")[2] or "all dates as 2024-01-31"
        raise DataError("data.time", error.problem, f"Write {remedy.strip()}") from None
    # Each value once: a day has many interactions.
    known = {value: form.read(value, "date") for value in set(values)}
    return [math.nan if known[value] is None else float(known[value] or 0.0) for value in values]


def _sort(
    users: Sequence[str],
    items: Sequence[str],
    ratings: NDArray[np.float64] | None,
    times: NDArray[np.float64] | None,
    kept: Sequence[int],
) -> Log:
    chosen = np.array(kept, dtype=np.int64)
    # In the order in which they come, so that added rows at the end keep the numbers.
    user_ids = {name: n for n, name in enumerate(dict.fromkeys(users[row] for row in kept))}
    item_ids = {name: n for n, name in enumerate(dict.fromkeys(items[row] for row in kept))}
    by_user = np.array([user_ids[users[row]] for row in kept], dtype=np.int64)
    by_item = np.array([item_ids[items[row]] for row in kept], dtype=np.int64)
    # The last key decides first. What happened in one second stays in the order of the rows.
    keys: list[NDArray[Any]] = [chosen, by_user]
    if times is not None:
        keys.insert(1, times[chosen])
    order = np.lexsort(keys)
    chosen = chosen[order]
    return Log(
        list(user_ids),
        list(item_ids),
        by_user[order],
        by_item[order],
        None if ratings is None else ratings[chosen],
        None if times is None else times[chosen],
        chosen,
    )


def read_columns_of(
    rows: Rows, key: str, left_out: Sequence[str], lists: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return the columns of each user or item by its id.

    Args:
        rows: The table of users, or of items.
        key: The column with their ids.
        left_out: Columns that are not read.
        lists: What is between the words of columns that hold several.

    Raises:
        DataError: If one has no id, or is there twice.
    """
    # What is left out is not looked at: it may hold anything.
    names = [name for name in rows.columns if name != key and name not in left_out]
    found: dict[str, dict[str, Any]] = {}
    places: dict[str, int] = {}
    for row, value in enumerate(rows.columns[key]):
        own = _category(value)
        if not own:
            raise DataError(rows.origins[row], f"{key!r} is empty", "Fill it in, or remove the row")
        if own in found:
            first = rows.origins[places[own]]
            problem = f"{own!r} is there again, after {first}"
            raise DataError(rows.origins[row], problem, "Remove one of them")
        places[own] = row
        found[own] = {name: _value(rows.columns[name][row], lists.get(name)) for name in names}
    return found


def _value(value: Any, separator: str | None) -> Any:
    if separator is None:
        # Numbers of NumPy have no place in JSON.
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list | tuple):
        return [as_category(each) for each in value]
    words = as_category(value).split(separator)
    return [word.strip() for word in words if word.strip()]
