"""Rows and files to predict from: what a source reads, without the labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.contracts.data import Unlabelled
from groundup.core.errors import DataError, did_you_mean
from groundup.core.settings import expand_path
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.files import Cells, Record, check_text, read_file
from groundup.data.reading.listing import KINDS, ROW_KINDS, list_files
from groundup.data.reading.npz import array_names, read_arrays

__all__ = [
    "FILE",
    "find_column",
    "list_and_say",
    "read_files",
    "read_npz",
    "read_rows",
    "text_in",
    "texts_in",
]

FILE = "file"
"""The column of a file's path, where each file is a row."""

_log = logging.getLogger("groundup")
ToInputs = Callable[[Mapping[str, Any]], Any]


def read_rows(
    path: str,
    to_inputs: ToInputs,
    encoding: str | None,
    *,
    text: str = "text",
    cells: Cells | None = None,
    split_on: str | None = None,
    nested: Callable[[DataFile], Iterator[Record] | None] | None = None,
) -> Iterator[Unlabelled]:
    """Yield the rows of a file or folder; a text is a row with its file.

    Args:
        path: A file, or a folder.
        to_inputs: Makes of a row's columns what a model is given, or raises a DataError.
        encoding: Of texts and tables without a mark of their own; None: UTF-8.
        text: The column that a text becomes.
        cells: How lines become cells; None: as the kind of file says.
        split_on: How plain text is cut into rows; see ``read_records``.
        nested: Returns the rows of a file that keeps them within each other, else None.

    Raises:
        DataError: If a file cannot be read as rows.
    """
    cells = cells or Cells()
    for file in list_and_say(path, KINDS, encoding):
        rows = None if nested is None else nested(file)
        if rows is not None:
            yield from (_to_unlabelled(row.fields, to_inputs, row.origin) for row in rows)
            continue
        plain = file.kind not in ROW_KINDS and cells.separator is None
        named = (text,) if plain else ()
        for record in read_file(file, columns=named, split_on=split_on, cells=cells):
            columns = dict(record.fields)
            if plain:
                columns = {FILE: file.relative, **columns}
            yield _to_unlabelled(columns, to_inputs, record.origin)


def read_files(
    path: str, suffixes: Collection[str], column: str | None = None
) -> Iterator[Unlabelled]:
    """Yield the pictures or sounds of a folder, or those that the rows of a file name.

    Args:
        path: A picture or sound, a folder of them, or a file of rows with a column of their paths,
            taken relative to that file.
        suffixes: Of the files.
        column: The column of the paths; None: ``file``, ``file_name`` or ``path``.

    Raises:
        DataError: If there is no such file.
    """
    root = Path(expand_path(path))
    if root.is_dir() or root.suffix.lower() not in ROW_KINDS:
        for file in list_and_say(path, tuple(sorted(suffixes))):
            yield Unlabelled({FILE: file.relative}, file.path, str(file.path))
        return

    def to_inputs(row: Mapping[str, Any]) -> Path:
        names = [column] if column else [FILE, "file_name", "path", "image", "audio"]
        name = find_column(row, next((name for name in names if name in row), names[0]))
        found = root.parent / str(row[name])
        if not found.is_file():
            raise DataError("", f"there is no file {found}", "Correct the path")
        return found

    for file in list_and_say(path, ROW_KINDS):
        for record in read_file(file):
            yield _to_unlabelled(record.fields, to_inputs, record.origin)


def read_npz(path: str, key: str) -> Iterator[Unlabelled]:
    """Yield the rows of the only array of an .npz, or of the one called ``key``."""
    file = Path(expand_path(path))
    names = array_names(file)
    (inputs,) = read_arrays(file, names if len(names) == 1 else [key], f"Name the inputs {key}")
    for number, row in enumerate(inputs, 1):
        yield Unlabelled({"row": number}, row, f"{path} row {number}")


def list_and_say(path: str, kinds: Sequence[str], encoding: str | None = None) -> list[DataFile]:
    """Return the files of a path, and say what is left out."""
    listing = list_files(path, kinds, encoding=encoding)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in (+listing.left_out).items())
    if reasons:
        _log.info("%s: files that are not read: %s", path, reasons)
    return listing.files


def text_in(row: Mapping[str, Any], *names: str) -> str:
    """Return the text of the first column that is there.

    Raises:
        DataError: If none is, or it holds no text, or an empty one.
    """
    name = find_column(row, next((name for name in names if name in row), names[0]))
    value = row[name]
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    text = check_text(value, "", f"column {name!r}")
    if not text.strip():
        raise DataError("", f"column {name!r} is empty", "Write a text, or leave the row out")
    return text


def texts_in(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the text of a column, or the tuple of the texts of several."""
    texts = tuple(text_in(row, name) for name in names)
    return texts if len(texts) > 1 else texts[0]


def find_column(row: Mapping[str, Any], name: str) -> str:
    """Return the name of a column that must be there.

    Raises:
        DataError: If it is not.
    """
    if name not in row:
        raise DataError(
            "",
            f"there is no column {name!r}; {did_you_mean(name, row)}columns: {', '.join(row)}",
            "Name it as in the run's data",
        )
    return name


def _to_unlabelled(columns: dict[str, Any], to_inputs: ToInputs, origin: str) -> Unlabelled:
    try:
        return Unlabelled(columns, to_inputs(columns), origin)
    except DataError as error:
        return Unlabelled(columns, None, origin, error.problem, error.remedy)
