"""Which splits and columns of a Hugging Face data set are read: its own validation and test, found
by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Split, StoredFile
from groundup.data.reading.files import Record
from groundup.data.reading.hub import (
    HubTable,
    hub_fingerprint,
    hub_records,
    hub_split_names,
    hub_table,
)
from groundup.data.reading.source import Source
from groundup.data.splitting.drawing import say_once
from groundup.data.splitting.split_names import find_spelling, split_word

__all__ = [
    "HubFile",
    "HubOrigin",
    "file_column",
    "label_column",
    "labels_of",
    "text_column",
]

# names that public data sets use, the commonest first
_LABELS = ("label", "labels", "target", "class")


class HubFile(NamedTuple):
    """A picture or a sound in a row of a split."""

    file: StoredFile
    name: str  # of the split and the row, such as train:17
    label: Any
    split: Split


class HubOrigin(NamedTuple):
    """A data set, as a source's settings say; ``validation`` and ``test`` are None where they are
    to be found."""

    dataset: str
    subset: str | None
    revision: str | None
    train: str
    validation: str | None
    test: str | None
    streaming: bool
    licence: str

    @classmethod
    def of(cls, source: Source) -> HubOrigin | None:
        """Return what a data source says, or None where it names no data set."""
        if source.dataset is None:
            return None
        # lists are refused with a dataset, and a test that is a number is a share to draw
        validation = source.validation if isinstance(source.validation, str) else None
        test = source.test if isinstance(source.test, str) else None
        return cls(
            source.dataset,
            source.subset,
            source.revision,
            source.split,
            validation,
            test,
            source.streaming,
            source.licence,
        )

    def names(self) -> dict[Split, str]:
        """Return which split of the data set is read for which: those named, or its own validation
        and test.

        Raises:
            DataError: If the data set cannot be reached.
        """
        found: dict[Split, str] = {"train": self.train}
        named: dict[Split, str | None] = {"validation": self.validation, "test": self.test}
        if None in named.values():
            known = hub_split_names(
                self.dataset, subset=self.subset, revision=self.revision, streaming=self.streaming
            )
            # of train[:80%] the split train is taken
            taken = {re.split(r"\W", name)[0] for name in (self.train, *named.values()) if name}
            free = [name for name in known if name not in taken]
            named = {split: name or find_spelling(split, free) for split, name in named.items()}
        if not self.streaming:
            _say_column_of_splits(self.table(self.train))
        return found | {split: name for split, name in named.items() if name}

    def records(
        self, name: str, columns: Sequence[str], limit: int | None = None
    ) -> Iterator[Record]:
        """Yield the rows of one split by its own name, the first ``limit`` of them."""
        rows = hub_records(
            self.dataset,
            subset=self.subset,
            split=name,
            revision=self.revision,
            streaming=self.streaming,
            columns=columns,
        )
        return islice(rows, limit)

    def fingerprint(self, name: str) -> str:
        """Return a key that changes when the rows of a split do."""
        return hub_fingerprint(
            self.dataset,
            subset=self.subset,
            split=name,
            revision=self.revision,
            streaming=self.streaming,
        )

    def contents(self) -> dict[str, str]:
        """Return the version and the number of rows of each split; streaming, the revision that
        was asked for."""
        if self.streaming:
            version = f"revision {self.revision or 'newest'}"
            return {f"{self.dataset} {name}": version for name in self.names().values()}
        found = {}
        for name in self.names().values():
            table = self.table(name)
            found[f"{self.dataset} {name}"] = f"{len(table)} rows, version {table.version}"
        return found

    def version(self) -> dict[str, str]:
        """Return what a data card says of which version is read."""
        return {"subset": self.subset or "none", "revision": self.revision or "newest"}

    def table(self, name: str) -> HubTable:
        """Return one split by its own name, or by that of a part of it."""
        return hub_table(self.dataset, subset=self.subset, split=name, revision=self.revision)

    def tables(self, label: str | None = None) -> dict[Split, HubTable]:
        """Return the splits; without a test split found by its name that has no labels, as
        competitions publish them.

        Args:
            label: The label's column, or None where it is to be found.
        """
        found = {split: self.table(name) for split, name in self.names().items()}
        # GLUE publishes test splits whose labels are all -1
        if "test" in found and self.test is None:
            column = label or label_column(found["train"], None)
            own = found["test"].columns
            if column not in own or all(value is None for value in found["test"].values(column)):
                del found["test"]
        return found

    def files(
        self, kind: Literal["image", "audio"], column: str | None, label: str | None
    ) -> list[HubFile]:
        """Return the pictures or sounds of all splits with their labels, none of them read.

        Args:
            kind: What is looked for.
            column: The column that holds it, or None where it is to be found.
            label: The label's column, or None where it is to be found.

        Raises:
            DataError: If a column is missing or cannot be found, or a row has no label.
        """
        tables = self.tables(label)
        train = tables["train"]
        column = file_column(train, kind, column)
        label = label_column(train, label, column)
        found = []
        for split, table in tables.items():
            _require_column(table, column, f"data.{kind}_column")
            _require_column(table, label, "data.label_column")
            found += [
                HubFile(table.file(column, number), f"{table.split}:{number + 1}", each, split)
                for number, each in enumerate(labels_of(table, label))
            ]
        return found

    def about(self, tables: dict[Split, HubTable]) -> dict[str, Any]:
        """Return what the data card says of a data set: its name, licence, revision and splits."""
        names = self.names()
        train = tables["train"]
        about: dict[str, Any] = {
            "source": self.dataset,
            "licence": self.licence or train.licence or "not stated",
        }
        about |= self.version() | {"version": train.version}
        about["splits"] = {split: names[split] for split in tables}
        unlabelled = [name for split, name in names.items() if split not in tables]
        if unlabelled:
            about["without_labels"] = unlabelled
        return about


@lru_cache(maxsize=8)
def _say_column_of_splits(table: HubTable) -> None:
    """Warn of a column by which the rows would be of several splits, were they in files."""
    for name in ("split", "Split", "_split"):
        if table.columns.get(name) not in ("text", "class"):
            continue
        splits = {split_word(value) for value in table.values(name)}
        if len(splits) > 1 and None not in splits:
            named = ", ".join(sorted(map(str, splits)))
            say_once(
                f"{table.where}: column {name!r} says that rows are of {named}, and all are read"
                " alike: saved with to_parquet, and named as data.path, they are divided by it"
            )


def label_column(table: HubTable, named: str | None, inputs: str = "") -> str:
    """Return the column of the label: the one named; or called label, the one of classes, one with
    a common name.

    Raises:
        DataError: If it does not exist, or it is not clear which.
    """
    if named is not None:
        _require_column(table, named, "data.label_column")
        return named
    others = [
        name
        for name, kind in table.columns.items()
        if name != inputs and kind not in ("image", "audio", "file")
    ]
    classes = [name for name in others if table.columns[name] in ("class", "classes")]
    common = [name for name in _LABELS if name in others]
    # the name that is plain comes first, then the type that only labels have, then other names
    plain = [name for name in others if name == "label"]
    for among in (plain, classes, common, others):
        if len(among) == 1:
            return among[0]
    raise _cannot_tell(table, "label", others)


def text_column(table: HubTable, named: str | None) -> str:
    """Return the column of the text: the one named; or called text, or the only one that holds
    text.

    Raises:
        DataError: If it does not exist, or it is not clear which.
    """
    if named is not None or "text" in table.columns:
        _require_column(table, named or "text", "data.text_column")
        return named or "text"
    found = [name for name, kind in table.columns.items() if kind == "text" and name not in _LABELS]
    # Guessing would train on the wrong column without a word: better to ask.
    if len(found) != 1:
        raise _cannot_tell(table, "text", found)
    return found[0]


def labels_of(table: HubTable, column: str) -> list[Any]:
    """Return the labels of all rows.

    Raises:
        DataError: If the column holds no labels, or a row none.
    """
    if table.columns[column] in ("nested", "image", "audio", "file"):
        raise DataError(
            table.where,
            f"column {column!r} holds {table.columns[column]} values; allowed: classes, text or"
            " numbers",
            "Name another data.label_column",
        )
    found = table.values(column)
    # A label that is missing is no class of its own: learned as one, it would be predicted.
    empty = next((n for n, value in enumerate(found) if value is None or value == ""), None)
    if empty is not None:
        raise DataError(
            table.origin(empty),
            f"column {column!r} holds no label",
            "Name another data.label_column, or leave such rows out of a copy",
        )
    return found


def file_column(table: HubTable, kind: Literal["image", "audio"], named: str | None) -> str:
    """Return the column of the pictures or sounds: the one named, or the only one.

    Raises:
        DataError: If it does not exist, or it is not clear which.
    """
    if named is not None:
        _require_column(table, named, f"data.{kind}_column")
        if table.columns[named] not in (kind, "file"):
            raise DataError(
                table.where,
                f"column {named!r} holds {table.columns[named]} values; allowed: {kind}, or bytes"
                " of files",
                f"Name another data.{kind}_column",
            )
        return named
    for sought in (kind, "file"):
        found = [name for name, each in table.columns.items() if each == sought]
        if len(found) == 1:
            return found[0]
        if found:
            raise _cannot_tell(table, kind, found)
    raise DataError(
        table.where,
        f"no column holds {kind} files; columns: {_describe_columns(table)}",
        "Give another data set, or its folder of files as data.path",
    )


def _require_column(table: HubTable, name: str, setting_name: str) -> None:
    if name not in table.columns:
        raise DataError(
            table.where,
            f"there is no column {name!r}; {did_you_mean(name, table.columns)}columns:"
            f" {', '.join(table.columns)}",
            f"Correct {setting_name}",
        )


def _cannot_tell(table: HubTable, what: str, found: Sequence[str]) -> DataError:
    problem = f"which column holds the {what} is not clear; it may be {', '.join(found) or 'none'}"
    return DataError(
        table.where,
        f"{problem}; columns: {_describe_columns(table)}",
        f"Name it as data.{what}_column",
    )


def _describe_columns(table: HubTable) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in table.columns.items())
