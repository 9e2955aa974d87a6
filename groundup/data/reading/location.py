"""Where a recipe's rows come from: files, or a data set on the Hugging Face hub, and what is read
for each split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Split
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import KINDS, Cells, Record, fingerprint, list_files, read_file
from groundup.data.reading.hub_splits import HubOrigin
from groundup.data.reading.source import Source, as_list, refuse_idle
from groundup.data.splitting.split_names import divide_files

__all__ = ["Origin", "no_examples"]

PlacedFile = tuple[str, DataFile]  # the path of the recipe, and a file at or below it


class Origin:
    """The rows of each split, as a source's settings and the names of its files or splits say.

    Attributes:
        source: The settings.
        name: What to call the source in messages and cards.
        held_out: The splits besides training that have rows of their own, and need not be drawn.
        not_used: Files that are called like a split for which others are named.
    """

    def __init__(self, source: Source, kinds: Sequence[str] = KINDS) -> None:
        self.source = source
        self.name = source.place
        self.not_used: list[str] = []
        self._kinds = tuple(kinds)
        self._hub = HubOrigin.of(source)
        self._names: dict[Split, str] = {}
        self._files: dict[Split, list[PlacedFile]] = {}
        if self._hub is not None:
            self._names = self._hub.names()
            found = set(self._names)
        else:
            self._find_files()
            found = {split for split, files in self._files.items() if files}
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
        if self._hub is not None:
            return self._hub.records(self._names[split], columns, self.source.limit)
        rows = self._file_rows(split, columns, split_on, cells or Cells())
        return islice(rows, self.source.limit)

    def _file_rows(
        self, split: Split, columns: Sequence[str], split_on: str | None, cells: Cells
    ) -> Iterator[Record]:
        files = self.files(split)
        several = len({path for path, _ in files}) > 1
        for path, file in files:
            for record in read_file(file, columns=columns, split_on=split_on, cells=cells):
                if several:  # names are unique in a source, and files of two folders may share one
                    record = replace(record, name=f"{path}/{record.name}")
                yield record

    def key(self) -> str:
        """Return a key that changes when the rows of any split change."""
        if self._hub is None:
            roots = [self.source.path, self.source.validation]
            if not isinstance(self.source.test, float):
                roots.append(self.source.test)
            return fingerprint([path for root in roots for path in as_list(root)], self._kinds)
        # of all splits: training rows depend on the held-out ones, which they must not repeat
        parts = [self._hub.fingerprint(name) for name in self._names.values()]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Return what a data card says of where the rows come from."""
        card: dict[str, Any] = {
            "source": self.name,
            "licence": self.source.licence or "not stated",
        }
        if self._hub is not None:
            return card | self._hub.version() | {"splits": dict(self._names)}
        if self.held_out:
            card["splits"] = {split: _list_names(self.files(split)) for split in self.splits}
        if self.not_used:
            card["files_not_used"] = self.not_used
        return card

    def _find_files(self) -> None:
        found: dict[Split, list[PlacedFile]] = {"train": [], "validation": [], "test": []}
        for path in as_list(self.source.path):
            files = list_files(path, self._kinds)
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
                named = [(p, file) for p in as_list(paths) for file in list_files(p, self._kinds)]
                there = {file.path.resolve() for _, file in named}
                others = found.pop(split)
                # named files may be in a folder that is read, where they are no training rows
                found = {
                    each: [(p, f) for p, f in own if f.path.resolve() not in there or _is_file(p)]
                    for each, own in found.items()
                }
                found[split] = named
                self.not_used += [str(f.path) for _, f in others if f.path.resolve() not in there]
        if not found["train"]:
            problem = "every file of it is held out by data.validation or data.test"
            raise DataError(self.name, problem, "Name other files to train on than to hold out")
        self._files = found


def _is_file(path: str) -> bool:
    return Path(path).expanduser().is_file()


def no_examples(split: Split, origin: Origin) -> DataError:
    """Return the error for a split that nothing fell into."""
    return DataError(
        origin.name,
        f"nothing is left for {split} ({origin.source.rule})",
        "Give more examples, change data.fraction, name rows as data.validation, or, for plain"
        " text, set split_on",
    )


def _list_names(files: Sequence[PlacedFile]) -> str:
    if not files:
        return "drawn from train"
    names = [file.relative for _, file in files[:3]]
    if len(files) > 3:
        names.append(f"and {len(files) - 3} more")
    return ", ".join(names)
