"""Which splits and columns of a Hugging Face data set are read: its own validation and test, found
by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from groundup.core.errors import DataError, RecipeError, did_you_mean
from groundup.core.settings import Settings
from groundup.core.values import Split, StoredFile
from groundup.data.reading.hub import HubTable, hub_split_names, hub_table

__all__ = [
    "HubFile",
    "HubOrigin",
    "label_column",
    "labels_of",
    "problem_with_dataset",
    "refuse_idle",
    "text_column",
]

_VALIDATION = ("validation", "valid", "val", "dev")
_LABELS = ("label", "labels", "target", "class")
_HUB_ONLY = ("subset", "revision", "dataset_split", "validation_split", "test_split")


class HubFile(NamedTuple):
    """A picture or a sound in a row; ``split`` is None where it is still to be drawn."""

    file: StoredFile
    name: str  # of the split and the row, such as train:17
    label: Any
    split: Split | None


class HubOrigin(NamedTuple):
    """A data set, as the fields of a recipe say; ``validation`` and ``test`` are None where they
    are to be found."""

    dataset: str
    subset: str | None
    revision: str | None
    train: str
    validation: str | None
    test: str | None
    streaming: bool = False

    @classmethod
    def of(cls, source: Any) -> HubOrigin | None:
        """Return what a data source says, or None where it names no data set."""
        if source.dataset is None:
            return None
        splits = (source.dataset_split, source.validation_split, source.test_split)
        return cls(
            source.dataset,
            source.subset,
            source.revision,
            *splits,
            getattr(source, "streaming", False),
        )

    def names(self) -> dict[Split, str]:
        """Return which split of the data set is read for which: those named, or its own validation
        and test.

        Raises:
            DataError: If the data set cannot be reached.
        """
        known = hub_split_names(
            self.dataset, subset=self.subset, revision=self.revision, streaming=self.streaming
        )
        taken = {
            re.split(r"\W", name)[0] for name in (self.train, self.validation, self.test) if name
        }
        free = [name for name in known if name not in taken]
        validation = self.validation or next((name for name in _VALIDATION if name in free), None)
        test = self.test or ("test" if "test" in free else None)
        found: dict[Split, str] = {"train": self.train}
        return (
            found
            | ({"validation": validation} if validation else {})
            | ({"test": test} if test else {})
        )

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
        column = _file_column(train, kind, column)
        label = label_column(train, label, column)
        found = []
        for split, table in tables.items():
            for name in (column, label):
                _require(
                    table, name, f"data.{kind}_column" if name == column else "data.label_column"
                )
            side = None if split == "train" and "validation" not in tables else split
            labels = labels_of(table, label)
            found += [
                HubFile(table.file(column, number), f"{table.split}:{number + 1}", each, side)
                for number, each in enumerate(labels)
            ]
        return found

    def about(self, tables: dict[Split, HubTable], licence: str) -> dict[str, Any]:
        """Return what the data card says of a data set: its name, licence, revision and splits."""
        names, train = self.names(), tables["train"]
        about: dict[str, Any] = {
            "source": self.dataset,
            "licence": licence or train.licence or "not stated",
        }
        about |= {
            "subset": self.subset or "none",
            "revision": self.revision or "newest",
            "version": train.version,
        }
        about["splits"] = {split: names[split] for split in tables}
        unlabelled = [name for split, name in names.items() if split not in tables]
        return about | ({"without_labels": unlabelled} if unlabelled else {})


def problem_with_dataset(
    source: Settings, hub_only: Sequence[str], files_only: Sequence[str]
) -> str | None:
    """Return what contradicts itself in a source of files or of a data set, as
    ``"problem. remedy"``, or None.

    Args:
        source: It has the fields path, dataset and those that say which splits are read.
        hub_only: Further settings that matter for a data set only.
        files_only: Settings that matter for files only.
    """
    path, dataset = (getattr(source, name) for name in ("path", "dataset"))
    if (path is None) == (dataset is None):
        found = (
            "both path and dataset are given"
            if path is not None
            else "neither path nor dataset is given"
        )
        return (
            f"{found}; allowed: exactly one. Write path: for files, or dataset: for a Hugging Face"
            " name"
        )
    idle = _changed(source, (*_HUB_ONLY, *hub_only) if dataset is None else files_only)
    given, other = ("path", "dataset") if dataset is None else ("dataset", "path")
    if idle:
        return f"{idle[0]} has no effect with {given}; it applies to {other}. Remove {idle[0]}"
    if dataset is not None:
        splits = [
            getattr(source, name) for name in ("dataset_split", "validation_split", "test_split")
        ]
        twice = next(
            (name for n, name in enumerate(splits) if name is not None and name in splits[:n]), None
        )
        if twice is not None:
            return f"the split {twice!r} is named twice, to learn from and to judge. Name others"
    return None


def refuse_idle(source: Settings, names: Sequence[str], origin: HubOrigin) -> None:
    """Raise an error for settings that say how examples are drawn where the data set names them.

    Raises:
        RecipeError: Naming the first setting.
    """
    validation = origin.names().get("validation")
    if validation and (idle := _changed(source, names)):
        problem = f"has no effect: the data set's split {validation} is held out as it is"
        raise RecipeError(f"recipe.data.{idle[0]}", problem, f"Remove {idle[0]}")


def label_column(table: HubTable, named: str | None, inputs: str = "") -> str:
    """Return the column of the label: the one named; or called label, the one of classes, one with
    a common name.

    Raises:
        DataError: If it does not exist, or cannot be told.
    """
    if named is not None:
        _require(table, named, "data.label_column")
        return named
    others = [
        name
        for name, kind in table.columns.items()
        if name != inputs and kind not in ("image", "audio", "file")
    ]
    classes = [name for name in others if table.columns[name] in ("class", "classes")]
    common = [name for name in _LABELS if name in others]
    for among in (common[:1] if "label" in common else [], classes, common, others):
        if len(among) == 1:
            return among[0]
    raise _untold(table, "label", others)


def text_column(table: HubTable, named: str | None) -> str:
    """Return the column of the text: the one named; or called text, or the only one that holds
    text.

    Raises:
        DataError: If it does not exist, or cannot be told.
    """
    if named is not None or "text" in table.columns:
        _require(table, named or "text", "data.text_column")
        return named or "text"
    found = [name for name, kind in table.columns.items() if kind == "text" and name not in _LABELS]
    if len(found) != 1:
        raise _untold(table, "text", found)
    return found[0]


def labels_of(table: HubTable, column: str) -> list[Any]:
    """Return the labels of all rows.

    Raises:
        DataError: If the column holds no labels, or a row none.
    """
    if table.columns[column] in ("nested", "image", "audio", "file"):
        problem = (
            f"column {column!r} holds {table.columns[column]} values; allowed: classes, text or"
            " numbers"
        )
        raise DataError(table.where, problem, "Name another data.label_column")
    found = table.values(column)
    empty = next((n for n, value in enumerate(found) if value is None or value == ""), None)
    if empty is not None:
        remedy = "Name another data.label_column, or leave such rows out of a copy"
        raise DataError(table.origin(empty), f"column {column!r} holds no label", remedy)
    return found


def _file_column(table: HubTable, kind: Literal["image", "audio"], named: str | None) -> str:
    if named is not None:
        _require(table, named, f"data.{kind}_column")
        if table.columns[named] not in (kind, "file"):
            problem = (
                f"column {named!r} holds {table.columns[named]} values; allowed: {kind}, or bytes"
                " of files"
            )
            raise DataError(table.where, problem, f"Name another data.{kind}_column")
        return named
    for sought in (kind, "file"):
        found = [name for name, each in table.columns.items() if each == sought]
        if len(found) == 1:
            return found[0]
        if found:
            raise _untold(table, kind, found)
    problem = f"no column holds {kind} files; columns: {_described(table)}"
    raise DataError(
        table.where, problem, "Give another data set, or its folder of files as data.path"
    )


def _require(table: HubTable, name: str, setting_name: str) -> None:
    if name not in table.columns:
        problem = (
            f"there is no column {name!r}; {did_you_mean(name, table.columns)}columns:"
            f" {', '.join(table.columns)}"
        )
        raise DataError(table.where, problem, f"Correct {setting_name}")


def _untold(table: HubTable, what: str, found: Sequence[str]) -> DataError:
    problem = (
        f"which column holds the {what} cannot be told; it may be {', '.join(found) or 'none'}"
    )
    return DataError(
        table.where, f"{problem}; columns: {_described(table)}", f"Name it as data.{what}_column"
    )


def _described(table: HubTable) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in table.columns.items())


def _changed(source: Settings, names: Sequence[str]) -> list[str]:
    return [
        name for name in names if getattr(source, name) != type(source).model_fields[name].default
    ]
