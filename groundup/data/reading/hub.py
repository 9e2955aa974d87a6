"""Rows of a Hugging Face data set, through the `datasets` library, which reads HF_ENDPOINT, HF_HOME
and HF_TOKEN."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Literal

from groundup.core.errors import DataError, GroundupError, MissingExtraError, did_you_mean
from groundup.core.settings import as_path
from groundup.core.values import StoredFile
from groundup.data.reading.files import Record

__all__ = [
    "ColumnKind",
    "HubTable",
    "hub_fingerprint",
    "hub_records",
    "hub_split_names",
    "hub_table",
]

ColumnKind = Literal["image", "audio", "file", "class", "classes", "text", "value", "nested"]


# ---------------------------------------------------------------------------------- rows one by one
def hub_records(
    dataset: str,
    *,
    subset: str | None = None,
    split: str = "train",
    revision: str | None = None,
    streaming: bool = False,
    columns: Sequence[str] = (),
) -> Iterator[Record]:
    """Yield the rows of one split of a data set; classes by their names, None where a row has none.

    Args:
        dataset: Its name, such as ``"roneneldan/TinyStories"``, or a folder with a copy of it.
        subset: Its configuration, where it has several.
        split: The split to read.
        revision: A branch, tag or commit.
        streaming: Read over the network while training, instead of downloading first.
        columns: Columns that every row must have; of a data set with known columns only these are
            read.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        DataError: If the data set, subset, split or column does not exist or cannot be reached.
    """
    where = (
        f"data set {dataset} (subset {subset or 'none'}, split {split}, revision"
        f" {revision or 'newest'})"
    )
    with _put_into_words(where):
        loaded = _load_dataset(dataset, subset, split, revision, streaming)
        # streamed from files of unknown types there are none
        features = getattr(loaded, "features", None) or {}
        if columns and set(columns) <= set(features):
            # Parquet is kept by column: what is not asked for is not even read
            loaded = loaded.select_columns(list(columns))
        rows = iter(loaded)
    names = {
        column: names
        for column, feature in features.items()
        if (names := _class_names(feature)) is not None
    }
    for number in count(1):
        with _put_into_words(where):  # streaming, every row may be a request
            row = next(rows, None)
        # None marks the end here: rows are dictionaries
        if row is None:
            return
        for column in columns:
            if column not in row:
                raise _missing_column(where, column, list(row))
        named = {
            column: _name_classes(row[column], names[column]) for column in names if column in row
        }
        yield Record({**row, **named}, f"{split}:{number}", f"{where} row {number}")


def hub_fingerprint(
    dataset: str, *, subset: str | None, split: str, revision: str | None, streaming: bool
) -> str:
    """Return a key of what would be read: the library's own fingerprint of the rows, or the names
    when streaming."""
    # streaming, nothing is on the disk to look at: the revision is what a user can fix
    key = hashlib.sha256(repr((dataset, subset, split, revision, streaming)).encode())
    if not streaming:
        with _put_into_words(f"data set {dataset} (subset {subset or 'none'}, split {split})"):
            key.update(_state_of_files(_load_dataset(dataset, subset, split, revision, streaming)))
    return key.hexdigest()


def _state_of_files(loaded: Any) -> bytes:
    """Return what changes when the files change that a split was copied to."""
    checksums = sorted((loaded.info.download_checksums or {}).items())
    files = sorted(
        (c["filename"], Path(c["filename"]).stat().st_mtime_ns) for c in loaded.cache_files
    )
    return repr(
        (loaded.num_rows, [name for name, _ in checksums], loaded.info.dataset_size, files)
    ).encode()


# ----------------------------------------------------------------------------------- rows by number
class HubTable:
    """The rows of one split, taken by number from the disk: no more than one row's file is ever in
    memory.

    Args:
        rows: What the library gave.
        where: What to call it in messages.
        split: Its name, or that of a part of it.

    Attributes:
        columns: The kind of each column. A ``file`` is bytes of no stated kind; ``value`` a number,
            truth or date.
        version: The commit, or a hash of a folder's content.
        licence: What the data set itself says, or an empty text.
        key: Changes when the rows change.
    """

    def __init__(self, rows: Any, where: str, split: str) -> None:
        for name, feature in dict(rows.features).items():
            if type(feature).__name__ in ("Image", "Audio"):
                # decoded later, in the project's own way: the library's needs torchcodec for sounds
                rows = rows.cast_column(name, type(feature)(decode=False))
        self._rows = rows
        self.where = where
        self.split = split
        self.columns: dict[str, ColumnKind] = {
            name: _kind_of(feature) for name, feature in rows.features.items()
        }
        # the library keeps each version in a folder that is called by its commit
        self.version = ""
        if rows.cache_files:
            self.version = Path(rows.cache_files[0]["filename"]).parent.name
        self.licence = str(rows.info.license or "")
        self.key = hashlib.sha256(_state_of_files(rows)).hexdigest()
        # a table of one column each, because reading a row decodes all that it holds
        self._single: dict[str, Any] = {}

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def origin(self, number: int) -> str:
        """Return what to call the row ``number``, counted from 0, in messages, which count from
        1."""
        return f"{self.where} row {number + 1}"

    def values(self, column: str) -> list[Any]:
        """Return a column's values; of classes their names, and None where a row has none."""
        with _put_into_words(self.where):
            # by way of a table of one column: rows would decode every picture for a label
            found: list[Any] = self._select_column(column).to_dict()[column]
        # numbers of classes mean nothing outside of this data set, and names do
        names = _class_names(self._rows.features[column])
        return found if names is None else [_name_classes(value, names) for value in found]

    def names_within(self, column: str) -> dict[str, Sequence[str]]:
        """Return the names of the classes that a column of objects holds, by the objects' keys."""
        feature = self._rows.features[column]
        inner = feature if isinstance(feature, Mapping) else _elements_of(feature)
        keys = inner.items() if isinstance(inner, Mapping) else ()
        return {key: names for key, own in keys if (names := _class_names(own)) is not None}

    def file(self, column: str, number: int) -> StoredFile:
        """Return the file in a row, not yet read."""
        return _Cell(self, column, number)

    def value(self, column: str, number: int) -> Any:
        """Return what is in one cell."""
        with _put_into_words(self.origin(number)):
            return self._select_column(column)[number][column]

    def _select_column(self, column: str) -> Any:
        if column not in self._single:
            self._single[column] = self._rows.select_columns([column])
        return self._single[column]


class _Cell(StoredFile):
    """The file in one row."""

    __slots__ = ("_cell_column", "_number", "_table")

    def __init__(self, table: HubTable, column: str, number: int) -> None:
        self._table = table
        self._cell_column = column
        self._number = number

    def __str__(self) -> str:
        return self._table.origin(self._number)

    def __repr__(self) -> str:
        return f"<{self} column {self._cell_column}>"

    def read(self) -> bytes:
        """Return the file's bytes: those in the row, or of the path that it names."""
        value = self._table.value(self._cell_column, self._number)
        content = value
        path = None
        if isinstance(value, Mapping):  # as the library keeps pictures and sounds
            content = value.get("bytes")
            path = value.get("path")
        if content:
            return bytes(content)
        # kept by its path alone, as in a folder of files with a table
        if not path:
            raise DataError(
                str(self), f"column {self._cell_column!r} holds no file", "Remove the row"
            )
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise DataError(
                str(self), f"the file cannot be read: {error}", "Fetch the data set again"
            ) from None


def hub_table(dataset: str, *, subset: str | None, split: str, revision: str | None) -> HubTable:
    """Return one split of a data set, kept on the disk.

    Args:
        dataset: Its name, or a folder with a copy of it.
        subset: Its configuration, where it has several.
        split: The split, or a part of it such as ``train[:80%]``.
        revision: A branch, tag or commit.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        DataError: If the data set, subset or split does not exist or cannot be reached.
    """
    return _hub_table(dataset, subset, split, revision, _stamp_of_folder(dataset))


@lru_cache(maxsize=8)
def _hub_table(
    dataset: str, subset: str | None, split: str, revision: str | None, stamp: str
) -> HubTable:
    where = (
        f"data set {dataset} (subset {subset or 'none'}, split {split}, revision"
        f" {revision or 'newest'})"
    )
    with _put_into_words(where):
        return HubTable(_load_dataset(dataset, subset, split, revision, False), where, split)


def hub_split_names(
    dataset: str, *, subset: str | None, revision: str | None, streaming: bool = False
) -> tuple[str, ...]:
    """Return the names of a data set's splits.

    Raises:
        MissingExtraError: If `datasets` is not installed.
        DataError: If the data set or subset does not exist or cannot be reached.
    """
    return _split_names(dataset, subset, revision, streaming, _stamp_of_folder(dataset))


@lru_cache(maxsize=8)
def _split_names(
    dataset: str, subset: str | None, revision: str | None, streaming: bool, stamp: str
) -> tuple[str, ...]:
    with _put_into_words(
        f"data set {dataset} (subset {subset or 'none'}, revision {revision or 'newest'})"
    ):
        return tuple(_load_dataset(dataset, subset, None, revision, streaming))


def _stamp_of_folder(dataset: str) -> str:
    """Return what changes when a file of a folder does; nothing for a name of the hub."""
    # part of the key of the caches below: who writes the folder and reads it again sees what is new
    root = as_path(dataset)
    if not root.is_dir():
        return ""
    key = hashlib.sha256()
    # sorted in place, which os.walk respects: the key must not depend on the file system
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            status = Path(place, name).stat()
            key.update(
                f"{place}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
                    "utf-8", "replace"
                )
            )
    return key.hexdigest()


# ------------------------------------------------------------------------------------------ columns
def _class_names(feature: Any) -> Sequence[str] | None:
    """Return the names of the classes that a column holds the numbers of, one in a row or a list of
    them."""
    inner = _elements_of(feature) or feature
    return list(inner.names) if type(inner).__name__ == "ClassLabel" and inner.names else None


def _name_classes(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [names[number] for number in value]
    # -1 is a row without a class: a test split whose labels are kept back
    return None if value is None or value < 0 else names[value]


def _kind_of(feature: Any) -> ColumnKind:
    # By the names of the library's classes, so that it need not be imported to look at a column.
    name = type(feature).__name__
    known: dict[str, ColumnKind] = {"Image": "image", "Audio": "audio", "ClassLabel": "class"}
    if name in known:
        return known[name]
    if name == "Value":
        kind = str(feature.dtype)
        if "binary" in kind:
            return "file"
        return "text" if "string" in kind else "value"
    if isinstance(feature, Mapping) and set(feature) == {"bytes", "path"}:
        return "file"
    inner = _elements_of(feature)
    kind = type(inner).__name__
    plain = kind == "ClassLabel" or (kind == "Value" and "string" in str(inner.dtype))
    return "classes" if plain and name in ("List", "LargeList", "Sequence") else "nested"


def _elements_of(feature: Any) -> Any:
    """Return what the entries of a list are; None of what is no list."""
    # The library has several classes of lists, without a common one, and others in each version.
    return getattr(feature, "feature", None)


def _missing_column(where: str, column: str, existing: list[str]) -> DataError:
    problem = (
        f"there is no column {column!r}; {did_you_mean(column, existing)}columns:"
        f" {', '.join(existing)}"
    )
    return DataError(where, problem, "Name the right column")


# ------------------------------------------------------------------------------------------ loading
def _load_dataset(
    dataset: str, subset: str | None, split: str | None, revision: str | None, streaming: bool
) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "data") from None
    # Only a path that looks like one: owner/name may also be a folder that happens to be here.
    if dataset.startswith((".", "/", "~")):
        folder = as_path(dataset)
        if not folder.exists():
            raise DataError(
                f"data set {dataset}",
                "no such folder",
                "Correct the path; it is taken relative to the current folder",
            )
        dataset = str(folder)
    return datasets.load_dataset(
        dataset, subset, split=split, revision=revision, streaming=streaming
    )


@contextmanager
def _put_into_words(where: str) -> Iterator[None]:
    """Turn what the library raises (not found, offline, gated, unknown subset, damaged files) into
    a DataError."""
    try:
        yield
    except GroundupError:
        raise
    # the library lets errors of several HTTP clients and file formats through
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".")
        remedy = (
            "Check the name and the network; HF_ENDPOINT names a mirror, HF_TOKEN opens gated data"
        )
        if isinstance(error, ConnectionError):
            offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
            if offline:
                remedy = "HF_HUB_OFFLINE is set: only what was read before is there; unset it"
            remedy = (
                f"{remedy}. Or download the data set elsewhere and give its folder: dataset:"
                " ./folder"
            )
        raise DataError(where, f"cannot be loaded: {reason}", remedy) from error
