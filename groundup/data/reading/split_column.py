"""The column that says which split a row is, in files that hold the rows of several splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, Record, read_file
from groundup.data.reading.json_rows import SPLIT_KEY
from groundup.data.reading.listing import ROW_KINDS
from groundup.data.splitting.split_names import SPELLINGS, split_word
from groundup.media.table_values import as_boolean

__all__ = ["SplitColumn", "columns_of", "find_split_column", "split_of"]

_SHOWN = 8  # values that a message names
_ALLOWED = ", ".join(word for words in SPELLINGS.values() for word in words)


@dataclass(frozen=True)
class SplitColumn:
    """A column whose values are names of splits.

    Attributes:
        name: The column.
        counts: How many rows each split has, by it.
        labelled: How many of them have a label.
        files: Those that have the column.
    """

    name: str
    counts: Counter[Split] = field(default_factory=Counter)
    labelled: Counter[Split] = field(default_factory=Counter)
    files: set[DataFile] = field(default_factory=set)

    @property
    def divides(self) -> bool:
        """Whether there are training rows by it, and others."""
        others = self.counts.total() - self.counts["train"]
        # most rows of a column is_valid may be valid in another sense
        most = self.name.lower().startswith("is_") and others > self.counts["train"]
        return bool(self.counts["train"] and others) and not most

    def keep(self, records: Iterable[Record], split: Split) -> Iterator[Record]:
        """Yield the rows of a split, without the column."""
        for record in records:
            fields = dict(record.fields)
            if split_of(self.name, fields.pop(self.name)) == split:
                yield Record(fields, record.name, record.origin)

    def describe(self, split: Split) -> str:
        """Return what a data card says of where the rows of a split come from."""
        return f"{self.counts[split]:,} rows whose column {self.name!r} says so"


def split_of(column: str, value: Any) -> Split | None:
    """Return the split that a cell names: by its word, or, of a column such as ``is_valid``, by its
    truth."""
    flagged = split_word(column.strip().lower().removeprefix("is_"))
    if flagged is None or not column.lower().startswith("is_"):
        return split_word(value)
    # is_valid and is_test are flags: what is not held out is trained on.
    truth = as_boolean(value)
    if truth is None or math.isnan(truth):
        return None
    if flagged == "train":
        return "train" if truth else "validation"
    return flagged if truth else "train"


def find_split_column(
    files: Sequence[DataFile],
    named: str | None,
    labels: Collection[str] = (),
    cells: Cells | None = None,
) -> SplitColumn | None:
    """Return the column of files by which their rows are of several splits, or None.

    It is the one that is named; else one of which every value is a spelling of a split, train and
    another among them.

    Args:
        files: What is trained on, unless the column says otherwise.
        named: The recipe's ``split_column``; None: to be found; empty: there is none.
        labels: Columns to predict, which are never taken for it.
        cells: How lines become cells.

    Raises:
        DataError: If a named column, or one called split, has other values next to those.
    """
    if named == "":
        return None
    # All files are counted before one decides: a column may divide them only together.
    cells = cells or Cells()
    values: dict[str, Counter[tuple[str, bool]]] = {}
    having: dict[str, list[DataFile]] = {}
    for file in files:
        if file.kind not in ROW_KINDS and cells.separator is None:
            continue
        for name, found in _count_values(
            file, _stamp_of(file), named, tuple(labels), cells
        ).items():
            values.setdefault(name, Counter()).update(found)
            having.setdefault(name, []).append(file)
    columns = {
        name: _to_column(name, found, having[name])
        for name, found in values.items()
        if all(split_of(name, value) for value, _ in found)
    }
    several = [name for name, column in columns.items() if column.divides]
    # where several columns say it, the one that is called so
    if SPLIT_KEY in several:
        several = [SPLIT_KEY]
    if several:
        return columns[several[0]]
    _refuse_others(values, having, named)
    return None


def _to_column(
    name: str, values: Counter[tuple[str, bool]], files: Iterable[DataFile]
) -> SplitColumn:
    column = SplitColumn(name, files=set(files))
    for (value, labelled), count in values.items():
        split = split_of(name, value)
        assert split is not None
        column.counts[split] += count
        column.labelled[split] += count * labelled
    return column


def _refuse_others(
    values: dict[str, Counter[tuple[str, bool]]],
    having: dict[str, list[DataFile]],
    named: str | None,
) -> None:
    for name, found in values.items():
        counts: Counter[str] = Counter()
        for (value, _), count in found.items():
            counts[value] += count
        splits = {split for value in counts if (split := split_of(name, value))}
        # rows of a split that nobody knows would be in none, or in training
        unknown = [value for value in counts if not split_of(name, value)]
        if unknown and (name == named or (name.lower() == SPLIT_KEY and len(splits) > 1)):
            shown = ", ".join(f"{value!r} {n:,}" for value, n in counts.most_common(_SHOWN))
            raise DataError(
                str(having[name][0].path),
                f"column {name!r} says which split a row is, but {unknown[0]!r} is none; it holds"
                f" {shown}; allowed: {_ALLOWED}",
                "Correct the values, or set data.split_column: '' to take all rows alike",
            )
        if name == named and "train" not in splits:
            raise DataError(
                str(having[name][0].path),
                f"column {name!r} says that no row is train; it holds {', '.join(counts)}",
                "Correct the values, or set data.split_column: '' to take all rows alike",
            )


def columns_of(files: Iterable[DataFile], cells: Cells | None = None) -> list[str]:
    """Return the columns of the first rows of files."""
    found: dict[str, None] = {}
    for file in files:
        if file.kind in ROW_KINDS:
            found |= dict.fromkeys(_first_row(file, _stamp_of(file), cells or Cells()) or ())
    return list(found)


def _stamp_of(file: DataFile) -> tuple[int, int]:
    state = file.path.stat()
    return state.st_size, state.st_mtime_ns


# Of one state of a file, because a source reads its files once for every split, and more.
@lru_cache(maxsize=4096)
def _first_row(file: DataFile, stamp: tuple[int, int], cells: Cells) -> dict[str, Any] | None:
    """Return the first row of a file; None where there is none that can be read."""
    try:
        first = next(read_file(file, cells=cells, may_be_empty=True), None)
    except DataError:  # whoever reads the rows says what is wrong with them
        return None
    return None if first is None else first.fields


@lru_cache(maxsize=4096)
def _count_values(
    file: DataFile,
    stamp: tuple[int, int],
    named: str | None,
    labels: tuple[str, ...],
    cells: Cells,
) -> dict[str, Counter[tuple[str, bool]]]:
    """Return how often each value of the columns occurs that may say the split, and whether there
    is a label next to it."""
    first = _first_row(file, stamp, cells)
    if first is None:
        return {}
    if named is not None and named not in first:
        problem = f"there is no column {named!r}; {did_you_mean(named, first)}columns: "
        raise DataError(str(file.path), problem + ", ".join(first), "Correct data.split_column")
    found: dict[str, Counter[tuple[str, bool]]] = {
        name: Counter()
        for name, value in first.items()
        if name not in labels and (name == named or (named is None and split_of(name, value)))
    }
    # The whole file is read only where its first row has such a value.
    if not found:
        return {}
    try:
        for record in read_file(file, cells=cells):
            fields = record.fields
            labelled = all(fields.get(label) not in (None, "") for label in labels)
            for name in found:
                found[name][str(fields.get(name, "")), labelled] += 1
    except DataError:
        if named is not None:
            raise
        return {}
    return found
