"""Columns that give the target away, or that only count the rows: what a person would look at twice
before training.

Shape legend: N rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError
from groundup.media.find_format import look_at
from groundup.media.table_values import TELLS, Kind, as_category

__all__ = ["find_leaks", "find_stand_in", "like_an_id", "nothing_varies", "why_dropped"]

# rows that are looked at, spread over all
_ROWS = 5_000
# fewer rows than this say nothing
_FEW = 20
# different numbers from which a target is no class
_CLASSES = 20
# of the rows are told by a column alone, or of a number's variance is explained
_NEARLY_ALL = 0.995


def find_leaks(columns: Mapping[str, NDArray[Any]], targets: Sequence[Any]) -> list[str]:
    """Return a warning for each column from which alone a target can be told nearly always.

    Args:
        columns: (N,) each: numbers, NaN where there is none, or texts.
        targets: (N,) what is predicted, or mappings of these by name.
    """
    rows = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), _ROWS)).astype(int))
    if len(rows) < _FEW:
        return []
    chosen = [targets[row] for row in rows]
    named = {"": chosen}
    if isinstance(chosen[0], Mapping):
        named = {str(name): [target.get(name) for target in chosen] for name in chosen[0]}
    found = []
    for target, values in named.items():
        if any(isinstance(value, list | tuple | np.ndarray | dict) for value in values):
            continue
        of = f"the target {target!r}" if target else "the target"
        tell = _teller(values)
        for name, column in columns.items():
            share = tell(column[rows])
            if share >= _NEARLY_ALL:
                found.append(
                    f"column {name!r} {TELLS} {of} in {share:.1%} of the rows: if it is only"
                    " known afterwards, name it under data.ignore"
                )
    return found


def like_an_id(values: NDArray[np.float64]) -> bool:
    """Whether numbers are whole, and grow or shrink from row to row without one coming twice."""
    if len(values) < _FEW or np.isnan(values).any() or (values != np.floor(values)).any():
        return False
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def find_stand_in(name: str, values: NDArray[np.float64]) -> str | None:
    """Return a note on a number such as -999 that comes more than once and is far from all others:
    by more than these are apart."""
    different, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(different) < _FEW:
        return None
    for ends, rest in ((different[0], different[1:]), (different[-1], different[:-1])):
        distance = np.abs(rest - ends).min()
        written = f"{ends:g}"
        if set(written.lstrip("-")) == {"9"} and distance > max(np.ptp(rest), 1):
            count = counts[different == ends][0]
            if count > 1:
                return (
                    f"column {name!r} holds {written} in {count:,} rows, far from all other numbers"
                    f" ({rest[0]:g} to {rest[-1]:g}): if it stands for no value, set"
                    f" processor.missing_values=['{written}']"
                )
    return None


def nothing_varies(dropped: Mapping[str, str], rows: int) -> DataError:
    """Return the error for a training split of which no column is of use."""
    named = "; ".join(f"column {name!r} {why.rstrip(',')}" for name, why in dropped.items())
    remedy = "Make columns of numbers or of repeated categories of them"
    if rows < 2:
        remedy = "Give more rows, or a larger data.limit"
    problem = f"no column of the training split ({rows:,} rows) tells its rows apart: {named[:300]}"
    return DataError("recipe.processor", problem, remedy)


def why_dropped(kind: Kind, values: NDArray[Any]) -> str:
    """Return why nothing is made of a column of values (N,)."""
    if kind != "categorical":
        return "is empty" if np.isnan(values).all() else "does not vary"
    different = set(values)
    if different == {""}:
        return "is empty"
    if len(different) == 1:
        return "does not vary"
    if len(different) == len(values):
        return "is different in every row, like a name or an id,"
    return "has no two categories that are common"


class _ClassTeller:
    """Says in how many rows a column tells a class; 0 where always guessing the commonest does
    nearly as well."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.count, self.labels = _number(np.array(labels, dtype=object))
        self.guess = np.bincount(self.labels).max() / len(labels)

    def __call__(self, column: NDArray[Any]) -> float:
        if self.guess > 0.95:
            return 0.0
        different, codes = _number(column)
        if different <= len(codes) / 3:
            table = np.zeros((different, self.count), np.int64)
            np.add.at(table, (codes, self.labels), 1)
            return int(table.max(1).sum()) / len(codes)
        if column.dtype.kind != "f":
            return 0.0
        # In the order of the column each class is in one piece.
        pieces = 1 + np.count_nonzero(np.diff(self.labels[np.argsort(column, kind="stable")]))
        return 1 - max(0, int(pieces) - self.count) / len(codes)


class _NumberTeller:
    """Says how much of a number's variance a column explains."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def __call__(self, column: NDArray[Any]) -> float:
        spread = self.values.var()
        if not spread:
            return 0.0
        different, codes = _number(column)
        if different <= len(codes) / 3:
            counts = np.bincount(codes)
            means = np.bincount(codes, self.values) / counts
            return float(1 - ((self.values - means[codes]) ** 2).mean() / spread)
        if column.dtype.kind != "f" or np.isnan(column).any():
            return 0.0
        # By ranks, so that any function that only grows is found; and it has to be nearly exact,
        # because two measures of one thing are no leak.
        one, other = (np.argsort(np.argsort(each)) for each in (column, self.values))
        strength = float(abs(np.corrcoef(one, other)[0, 1]))
        return strength if strength > 0.9999 else 0.0


def _teller(values: Sequence[Any]) -> _ClassTeller | _NumberTeller:
    found = look_at("target", Counter(values))
    if found.kind == "numeric" and len(set(values)) > _CLASSES:
        read = [found.format.read(value, "numeric") for value in values]
        numbers = np.array([np.nan if each is None else each for each in read])
        return _NumberTeller(np.where(np.isnan(numbers), np.nanmean(numbers), numbers))
    return _ClassTeller([as_category(value) for value in values])


def _number(values: NDArray[Any]) -> tuple[int, NDArray[np.int64]]:
    """Return how many different values there are, and the number of each."""
    different, codes = np.unique(values, return_inverse=True)
    return len(different), codes.reshape(-1)
