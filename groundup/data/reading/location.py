"""Where a recipe's rows come from: files, or a data set on the Hugging Face hub, and what is read
for each split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, Record, find_unreadable, fingerprint, read_file
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.listing import (
    KINDS,
    NOT_USED,
    TEXT_KINDS,
    Listing,
    in_one_form,
    list_files,
)
from groundup.data.reading.placement import Placement
from groundup.data.reading.source import Source, as_list, refuse_idle
from groundup.data.reading.split_column import SplitColumn, columns_of, find_split_column
from groundup.data.splitting.held_out import refuse_empty
from groundup.data.splitting.split_names import ambiguous_names, divide_files, missing_parts

__all__ = ["Origin", "no_examples"]

_NAMED = 5  # unreadable files that are named
PlacedFile = tuple[str, DataFile]  # the path of the recipe, and a file at or below it


class Origin:
    """The rows of each split, as a source's settings and the names of its files or splits say.

    Args:
        source: The settings.
        kinds: The kinds of files that are read.
        label: The column without which test files that are found by their name are left out.
        cells: How lines become cells.

    Attributes:
        source: The settings.
        name: What to call the source in messages and cards.
        held_out: The splits besides training that have rows of their own, and need not be drawn.
        listing: What was left out, by reason.
        not_used: Files that are called like a split for which others are named.
        placement: The groups and times of the rows that ``records`` gave.
        column: The column that says which split a row is, in the files named for training.
        warnings: What looks like a mistake, for the log and the data card.
        only: The files, by ``id``, whose rows are read; None: all.
    """

    def __init__(
        self,
        source: Source,
        kinds: Sequence[str] = KINDS,
        label: str | None = None,
        cells: Cells | None = None,
    ) -> None:
        self.source = source
        self.name = source.place
        self.listing = Listing()
        self.not_used: list[str] = []
        self.placement = Placement(source)
        self.warnings: list[str] = []
        self.column: SplitColumn | None = None
        self.only: set[int] | None = None
        self._in_column: set[Split] = set()
        self._columns_read: set[str] = set()
        self._cells = Cells()
        self._kinds = tuple(kinds)
        self._hub = HubOrigin.of(source)
        self._names: dict[Split, str] = {}
        self._files: dict[Split, list[PlacedFile]] = {}
        if self._hub is not None:
            self._names = self._hub.names()
            found = set(self._names)
        else:
            self._find_files()
            if label is not None and not source.names_test:
                self._leave_out_unlabelled_test(label, cells or Cells())
                self._leave_out_submissions(cells or Cells())
            found = {split for split, files in self._files.items() if files}
            found |= self._find_column(label, cells)
        self.held_out: tuple[Split, ...] = tuple(
            split for split in ("validation", "test") if split in found
        )
        refuse_idle(source, self.held_out)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits there are, named or drawn."""
        return self.source.rule.splits(self.held_out)

    def files(self, split: Split) -> list[PlacedFile]:
        """Return the files named for a split; none of a data set."""
        return self._files.get(split, [])

    def records(
        self,
        split: Split,
        columns: Sequence[str] = (),
        split_on: str | None = None,
        cells: Cells | None = None,
    ) -> Iterator[Record]:
        """Yield the rows named for a split, up to the source's ``limit``.

        Args:
            split: One that has rows of its own.
            columns: Columns that every row must have; see ``read_records``.
            split_on: How plain text is cut into rows; see ``read_records``.
            cells: How lines become cells.
        """
        if columns:  # without any, all are read
            columns = (*columns, *self.placement.columns)
        if self._hub is not None:
            rows = self._hub.records(self._names[split], columns, self.source.limit)
        else:
            rows = self._file_rows(split, columns, split_on, cells or Cells())
            rows = islice(rows, self.source.limit)
        return self.placement.watch(rows) if self.placement.columns else rows

    def _file_rows(
        self, split: Split, columns: Sequence[str], split_on: str | None, cells: Cells
    ) -> Iterator[Record]:
        several = len(self.files(split)) > 1  # one of many may be empty, and is counted
        self._columns_read.update(columns)
        self._cells = cells

        def read(file: DataFile, more: tuple[str, ...]) -> Iterator[Record]:
            wanted = (*columns, *more) if columns else ()  # without any, all are read
            return read_file(
                file, columns=wanted, split_on=split_on, cells=cells, may_be_empty=several
            )

        return self.rows_of_files(split, read)

    def rows_of_files(
        self, split: Split, read: Callable[[DataFile, tuple[str, ...]], Iterable[Record]]
    ) -> Iterator[Record]:
        """Yield the rows of a split from its files, and from those of training whose rows say that
        they are of it.

        Args:
            split: One that has rows of its own.
            read: Reads a file, with columns besides those that it wants itself.
        """
        # a file named for a split is that split, whatever its rows say; those of training are not
        column = self.column
        files = self.files(split)
        divided: list[PlacedFile] = []
        if column is not None and split in ("train", *self._in_column):
            divided = [placed for placed in self.files("train") if placed[1] in column.files]
            files = [*(placed for placed in files if placed not in divided), *divided]
        several = len({path for path, _ in files}) > 1
        for path, file in files:
            if self.only is not None and id(file) not in self.only:
                continue
            rows = read(file, ())
            if column is not None and (path, file) in divided:
                rows = column.keep(read(file, (column.name,)), split)
            for record in rows:
                if several:  # names are unique in a source, and files of two folders may share one
                    record = replace(record, name=f"{path}/{record.name}")
                yield record

    def _find_column(self, label: str | None, cells: Cells | None) -> set[Split]:
        """Find the column that says which split a row is; return the splits that have rows by
        it."""
        files = [file for _, file in self.files("train")]
        labels = () if label is None else (label,)
        column = find_split_column(files, self.source.split_column, labels, cells)
        if column is None:
            return set()
        self.column = column
        counts = ", ".join(f"{split} {count:,}" for split, count in column.counts.items())
        self.warnings.append(f"column {column.name!r} says which split a row is: {counts}")
        named = {"validation": self.source.validation, "test": self.source.test}
        for split in ("validation", "test"):
            count = column.counts[split]
            if count and isinstance(named[split], str | list):
                words = f"{count:,} of {split} are not used: data.{split} names others"
                self.warnings.append(words)
            elif count and split == "test" and label is not None and not column.labelled[split]:
                self.warnings.append(f"{count:,} of test have no {label!r}, and are left out")
            elif count:
                self._in_column.add(split)
        return self._in_column

    def key(self) -> str:
        """Return a key that changes when the rows of any split change."""
        if self._hub is None:
            return fingerprint(placed for files in self._files.values() for placed in files)
        # of all splits: training rows depend on the held-out ones, which they must not repeat
        parts = [self._hub.fingerprint(name) for name in self._names.values()]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def contents(self) -> dict[str, Path | str]:
        """Return what is read, by split and the path below that of the recipe."""
        if self._hub is not None:
            return dict(self._hub.contents())
        found: dict[str, Path | str] = {}
        for split in ("train", *self.held_out):
            files = self.files(split)
            roots = list(dict.fromkeys(path for path, _ in files))
            for path, file in files:
                name = f"{split}/{file.relative}"
                if len(roots) > 1:  # two folders may hold files of the same name
                    name = f"{split}/{roots.index(path) + 1}/{file.relative}"
                found[name] = file.path
        return found

    def about(self, met: Counter[str] | None = None) -> dict[str, Any]:
        """Return what a data card says of where the rows come from.

        Args:
            met: What was met besides rows, where others than this have read the files.
        """
        card: dict[str, Any] = {
            "source": self.name,
            "licence": self.source.licence or "not stated",
        }
        if self._hub is not None:
            return card | self._hub.version() | {"splits": dict(self._names)}
        files = [file for own in self._files.values() for _, file in own]
        card["files"] = self.listing.about(len(files))
        if met := met or sum((file.notes for file in files), Counter[str]()):
            card["met_in_files"] = dict(sorted(met.items()))
        if self.held_out:
            card["splits"] = {split: self._describe(split) for split in self.splits}
        if unused := self._list_unused_columns():
            card["columns_not_used"] = unused
        if self.not_used:
            card["files_not_used"] = self.not_used
        if self.warnings:
            card["warnings"] = self.warnings
        return card

    def _list_unused_columns(self) -> list[str]:
        """Return the columns that are not read, where some were asked for."""
        if not self._columns_read:
            return []
        # of the first rows: to look at all would take reading everything once more
        known = {*self._columns_read, *([self.column.name] if self.column else [])}
        files = [file for _, file in self.files("train")]
        columns = columns_of(files, self._cells)
        return [name or "''" for name in columns if in_one_form(name).strip() not in known]

    def _describe(self, split: Split) -> str:
        found = []
        if self.column is not None and split in ("train", *self._in_column):
            found.append(self.column.describe(split))
            if split == "train":
                return found[0]
        if self.files(split) or not found:
            found.append(_list_names(self.files(split)))
        return ", ".join(found)

    def _list(self, path: str) -> list[DataFile]:
        """Return the files of a path that are read; what is left out is counted."""
        source = self.source
        listing = list_files(
            path, self._kinds, encoding=source.encoding, on_unreadable=source.on_unreadable
        )
        self.listing.count(listing)
        files = listing.files
        if source.on_unreadable == "skip":
            bad = {file: problem for file in files if (problem := find_unreadable(file))}
            files = [file for file in files if file not in bad]
            self.listing.left_out["unreadable"] += len(bad)
            self.warnings += [f"left out: {file.path}: {bad[file]}" for file in [*bad][:_NAMED]]
            if not files:
                raise DataError(
                    path, "none of the files can be read", "Set data.on_unreadable: stop to see why"
                )
        return files

    def _leave_out_unlabelled_test(self, label: str, cells: Cells) -> None:
        """Leave out test files that are found by their name and have no labels, as competitions
        publish them."""
        for _, file in self.files("test"):
            first = next(read_file(file, cells=cells, may_be_empty=True), None)
            if first is not None and label not in first.fields:
                self._files["test"] = [each for each in self.files("test") if each[1] != file]
                self.listing.left_out["test files without labels"] += 1
                self.warnings.append(f"{file.relative} has no column {label!r}, and is left out")

    def _leave_out_submissions(self, cells: Cells) -> None:
        """Leave out what competitions publish to show what a submission is: guesses, without what
        the rows to learn from have."""
        train = self.files("train")
        samples = [each for each in train if "submission" in Path(each[1].relative).stem.lower()]
        others = [each for each in train if each not in samples]
        # alone it is what the user wants to read
        if not samples or not others:
            return
        first = next(read_file(others[0][1], cells=cells, may_be_empty=True), None)
        for each in samples:
            row = next(read_file(each[1], cells=cells, may_be_empty=True), None)
            if first is not None and row is not None and set(row.fields) < set(first.fields):
                self._files["train"] = [other for other in self.files("train") if other != each]
                self.listing.left_out["samples of a submission"] += 1
                words = "has not all columns of the others, and is left out as a sample"
                self.warnings.append(f"{each[1].relative} {words} of a submission")

    def _leave_out_known(self, files: list[DataFile], known: set[Path]) -> list[DataFile]:
        """Return the files that no path before has; they are known from now on."""
        places = {file.path.resolve(): file for file in files}
        new = [file for place, file in places.items() if place not in known]
        self.listing.left_out["in several of the paths"] += len(files) - len(new)
        known.update(places)
        return new

    def _find_files(self) -> None:
        found: dict[Split, list[PlacedFile]] = {"train": [], "validation": [], "test": []}
        known: set[Path] = set()
        for path in as_list(self.source.path):
            files = self._list(path)
            if isinstance(self.source.path, list):
                files = self._leave_out_known(files, known)
            if not _is_file(path) and (lost := missing_parts(files)):
                self.warnings.append(f"parts of a data set are missing ({'; '.join(lost)})")
            divided: dict[Split, list[DataFile]] = {"train": files}
            if not _is_file(path):  # a file is what its path says, whatever its name
                divided = divide_files(files)
            for split, own in divided.items():
                found[split] += [(path, file) for file in own]
        # What is named in the recipe comes before what is called so.
        held_out: dict[Split, str | list[str] | float | None] = {
            "validation": self.source.validation,
            "test": self.source.test,
        }
        for split, paths in held_out.items():
            if isinstance(paths, str | list):
                named = [(p, file) for p in as_list(paths) for file in self._list(p)]
                there = {file.path.resolve() for _, file in named}
                # rows of tables may be alike by chance, and stay: those may be tried on themselves
                for path, file in found["train"] if self.source.reads_in_order else ():
                    if _is_file(path) and file.path.resolve() in there:
                        raise DataError(
                            str(file.path),
                            f"is named to train on and as data.{split}",
                            f"Name another file, or leave out data.{split}: a share is drawn then",
                        )
                others = found.pop(split)
                # named files may be in a folder that is read, where they are no training rows
                found = {
                    each: [(p, f) for p, f in own if f.path.resolve() not in there or _is_file(p)]
                    for each, own in found.items()
                }
                found[split] = named
                unused = [str(f.path) for _, f in others if f.path.resolve() not in there]
                self.not_used += unused
                self.listing.left_out[NOT_USED] += len(unused)
        if not found["train"]:
            raise DataError(
                self.name,
                "every file of it is held out by data.validation or data.test",
                "Name other files to train on than to hold out",
            )
        pooled = [file for path, file in found["train"] if not _is_file(path)]
        if named_so := ambiguous_names(pooled):
            words = "trained on, although called like held-out rows; data.validation or data.test"
            self.warnings.append(f"{words} would hold them out: {', '.join(named_so[:6])}")
        self._files = found


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def no_examples(
    split: Split, origin: Origin, groups: Iterable[str] = (), shared: str = "group"
) -> DataError:
    """Return the error for a split that nothing fell into; arguments as ``refuse_empty``."""
    rule = origin.source.rule
    known = () if origin.placement.columns else groups
    error = refuse_empty(split, origin.name, rule, origin.held_out, known, shared)
    remedy = error.remedy
    plain = any(file.kind in TEXT_KINDS for _, file in origin.files("train"))
    if plain and split not in origin.held_out and "split_on" not in origin.source.given("split_on"):
        remedy += ", or, for plain text, set data.split_on: blank_line or line"
    return DataError(error.where, error.problem, remedy)


def _list_names(files: Sequence[PlacedFile]) -> str:
    if not files:
        return "drawn from train"
    names = [file.relative for _, file in files[:3]]
    if len(files) > 3:
        names.append(f"and {len(files) - 3} more")
    return ", ".join(names)
