"""Data files as rows: texts, mails, JSON, tables and Parquet, compressed or not, streamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.compressed import DataFile, open_file
from groundup.data.reading.documents import is_raw_mail, read_documents
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.json_files import read_json_file, read_json_lines
from groundup.data.reading.json_text import type_name
from groundup.data.reading.listing import KINDS, TEXT_KINDS, list_files
from groundup.data.reading.npz import array_names
from groundup.data.reading.parquet import parquet_rows
from groundup.data.reading.plain_text import read_pieces
from groundup.data.reading.separator import choose_separator, explain_width, suggest_separator

__all__ = [
    "Cells",
    "Record",
    "check_header",
    "check_label",
    "check_text",
    "find_unreadable",
    "fingerprint",
    "is_header",
    "read_file",
    "read_records",
]


_HEAD = 512  # bytes that tell a mail


@dataclass(frozen=True)
class Record:
    """One row, or one piece of plain text. ``name`` is unique below the path read; ``origin`` is
    for messages."""

    fields: dict[str, Any]
    name: str
    origin: str


@dataclass(frozen=True)
class Cells:
    """How lines become cells.

    Attributes:
        separator: The character between cells; None: a comma in .csv and a tab in .tsv, unless the
            header makes another one certain, and no cells in .txt and .md.
        header: The first row names the columns; else they are called 1, 2, 3 ...
        quotes: Cells of .csv and .tsv may be quoted; else a quote is a character like others, as
            always in .txt.
    """

    separator: str | None = None
    header: bool = True
    quotes: bool = True


def fingerprint(listings: Iterable[tuple[str, DataFile]]) -> str:
    """Return a key that changes when one of the files, each below a path, is added, removed,
    resized or written to."""
    # By size and time, not content: hashing a large corpus at each start would take minutes. A file
    # that is written again without a change is tokenized again: that costs time but is never wrong.
    key = hashlib.sha256()
    for path, file in listings:
        status = file.path.stat()
        key.update(f"{path}\0{file.relative}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return key.hexdigest()


# ------------------------------------------------------------------------------------------ reading
def read_records(
    path: str | Path,
    *,
    columns: Sequence[str] = (),
    split_on: str | None = None,
    kinds: Sequence[str] = KINDS,
    cells: Cells = Cells(),
) -> Iterator[Record]:
    """Yield the rows of a file or folder, in order.

    A text, a web page and a mail are one row with the column ``columns[0]`` (or ``text``); a .txt
    or .md file is several where ``split_on`` is set. Rows are streamed, except from .json, which
    holds one list.

    Args:
        path: A file, or a folder that is read recursively.
        columns: Columns that every row must have; only these are read from Parquet. Empty: all.
        split_on: For plain text: ``"line"``, ``"blank_line"``, or the separator itself. ``None``:
            one row a file.
        kinds: The kinds of files that are read.
        cells: How lines of .csv and .tsv become cells; with a separator, those of .txt and .md too.

    Raises:
        DataError: Naming the file and line, row or byte that cannot be read.
    """
    # files in the order of their names, so that every machine reads the same rows in the same order
    for file in list_files(path, kinds).files:
        yield from read_file(file, columns=columns, split_on=split_on, cells=cells)


def read_file(
    file: DataFile,
    *,
    columns: Sequence[str] = (),
    split_on: str | None = None,
    cells: Cells = Cells(),
    may_be_empty: bool = False,
) -> Iterator[Record]:
    """Yield the rows of one file, in order; arguments and errors as ``read_records``.

    What is met besides rows, such as empty lines, is counted in the file's ``notes``.
    """
    file.notes.clear()
    empty = True
    for number, origin, fields in _rows_of(file, columns, split_on, cells):
        empty = False
        for column in columns:
            if column not in fields:
                fields = _in_one_form(fields)
                if unicodedata.normalize("NFC", column) not in fields:
                    raise _missing_column(origin, column, fields, file.kind)
                fields[column] = fields[unicodedata.normalize("NFC", column)]
        name = f"{file.relative}:{number}" if number else file.relative
        yield Record(fields, name, origin)
    if empty and may_be_empty:
        file.notes["files without rows, or of white space alone"] += 1
    elif empty:
        raise DataError(
            str(file.path),
            "nothing to read: no rows, or only white space",
            "Give a file with content",
        )


def check_text(value: Any, where: str, what: str) -> str:
    """Return ``value`` if it is text that UTF-8 can hold.

    Raises:
        DataError: If it is not a string, or holds half of a surrogate pair.
    """
    if isinstance(value, bytes):  # as some programs write columns of text to Parquet
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
    if not isinstance(value, str):
        shown = json.dumps(value, default=str, ensure_ascii=False)[:60]
        raise DataError(
            where,
            f"{what} is {type_name(value)} ({shown}); allowed: text",
            "Correct the row or name another column",
        )
    if value.isascii():  # as it knows at once, whatever its length
        return value
    # JSON may spell half of a surrogate pair, which fails only when a file is written much later
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            where,
            f"{what} holds half of a surrogate pair at character {error.start}, which no text can",
            "Correct the row",
        ) from None
    return value


def check_label(value: Any, where: str, column: str) -> Any:
    """Return ``value`` if it may be a label, or a list of them.

    Raises:
        DataError: If there is none.
    """
    # NaN differs from itself: what Parquet has where a number is missing
    if value is None or value == "" or isinstance(value, dict) or value != value:
        shown = repr(value)[:60] if value not in (None, "") else "nothing"
        raise DataError(
            where,
            f"column {column!r} holds {shown}; allowed: a label, as text or a number, or a list of"
            " them",
            "Correct the row, or name another column",
        )
    return value


def find_unreadable(file: DataFile) -> str:
    """Return why the text of a file cannot be read, or an empty text; rows are not looked at."""
    try:
        if file.kind == ".parquet":
            next(parquet_rows(file.path), None)
        elif file.kind == ".npz":
            array_names(file.path)
        else:
            with open_file(file) as handle:
                if file.kind not in (".eml", ".mbox"):
                    for _ in decode_lines(file, handle):
                        pass
    except DataError as error:
        return error.problem
    return ""


def _rows_of(
    file: DataFile, columns: Sequence[str], split_on: str | None, cells: Cells
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (row number from 1, or 0 where the file is one row; where; fields)."""
    if file.kind == ".parquet":
        if file.compression:
            raise DataError(
                str(file.path),
                "Parquet inside another compression cannot be streamed",
                "Decompress it first",
            )
        for number, row in enumerate(parquet_rows(file.path, columns), 1):
            yield number, f"{file.path} row {number}", row
        return
    with open_file(file) as handle:
        if file.kind in TEXT_KINDS and cells.separator is None:
            (column,) = columns[:1] or ("text",)
            mail = split_on is None and is_raw_mail(handle.peek(_HEAD)[:_HEAD])
            if file.kind in (".txt", ".md") and not mail:
                texts = read_pieces(file, handle, split_on)
            else:
                texts = read_documents(file, handle)
            for number, where, text in texts:
                yield number, where, {column: text}
        elif file.kind == ".jsonl":
            yield from read_json_lines(file, decode_lines(file, handle))
        elif file.kind == ".json":
            yield from read_json_file(file, handle)
        else:
            yield from _read_delimited(file, handle, cells)


# -------------------------------------------------------------------------------------------- cells
def _read_delimited(
    file: DataFile, handle: io.BufferedReader, how: Cells
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    # a cell may hold a whole document; the library's limit is 131,072 characters
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    quoting: Literal[0, 3] = csv.QUOTE_NONE
    if how.quotes and file.kind in (".csv", ".tsv"):
        quoting = csv.QUOTE_MINIMAL
    separator, lines = choose_separator(file, decode_lines(file, handle), how.separator, quoting)
    reader = csv.reader(lines, delimiter=separator, quoting=quoting, strict=True)
    header: list[str] = []
    last: str | None = None  # the last name of a header that the file has
    number = ended = 0
    try:
        for cells in reader:
            ended = reader.line_num
            if not cells:
                file.notes["empty lines"] += 1
                continue
            if not header and how.header:
                header = check_header(cells, str(file.path))
                last = header[-1]
                continue
            # files put together, each with its header and perhaps its mark
            if cells[-1] == last and is_header(cells, header):
                file.notes["header lines again"] += 1
                continue
            header = header or [str(place) for place in range(1, len(cells) + 1)]
            number += 1
            where = f"{file.path} row {number} (ends on line {reader.line_num})"
            # strict, because a cell too many is nearly always a separator inside a text
            if len(cells) != len(header):
                raise DataError(
                    where,
                    f"the row has {len(cells)} cells and the {'header' if how.header else 'first'}"
                    f" {len(header)}",
                    explain_width(header, cells),
                )
            yield number, where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise DataError(
                f"{file.path} line {ended + 1}",
                "a quote is opened in the row that begins here, and never closed",
                "Close it, or remove it",
            ) from None
        remedy = "Correct the line: quotes in a cell in quotes are written twice"
        if '\\"' in _line_of(file, reader.line_num):
            remedy += ', not with a backslash: sed \'s/\\\\"/""/g\' OLD > NEW'
        raise DataError(
            f"{file.path} line {reader.line_num}", f"not {file.kind[1:]}: {error}", remedy
        ) from None


def _line_of(file: DataFile, number: int) -> str:
    """Return a line by its number, from 1."""
    with open_file(file) as handle:
        return next(islice(decode_lines(file, handle), number - 1, None), "")


def check_header(names: Sequence[str], where: str) -> list[str]:
    """Return the names of columns in the one form in which names are compared (NFC).

    Raises:
        DataError: If two have the same name, of which one would silently be lost.
    """
    found = [unicodedata.normalize("NFC", name) for name in names]
    for name, count in Counter(found).items():
        if count > 1:
            raise DataError(
                where,
                f"the header has {count} columns named {name!r}",
                "Give every column a name of its own"
                + ("" if name else "; if lines of a title are above the header, remove them"),
            )
    return found


def is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a row is the header once more."""
    return cells[0].removeprefix("\ufeff") == header[0] and list(cells[1:]) == list(header[1:])


def _in_one_form(fields: dict[str, Any]) -> dict[str, Any]:
    # white space around the names of a header is no part of them
    return {unicodedata.normalize("NFC", name).strip(): value for name, value in fields.items()}


def _missing_column(where: str, column: str, row: dict[str, Any], kind: str) -> DataError:
    existing = list(row)
    remedy = "Name the right column in the data section, or correct the row"
    inside = next((name for name, value in row.items() if isinstance(value, dict)), None)
    if kind == ".json" and inside is not None:
        remedy += f"; if the rows are inside, as in {inside!r}, write them as a list of objects"
    if where.endswith(")"):  # of cells, whose header may be missing
        remedy += "; where the first line is no header, add one (some have data.header: false)"
    return DataError(
        where,
        f"there is no column {column!r}; {did_you_mean(column, existing)}columns:"
        f" {', '.join(existing) or 'none'}",
        suggest_separator(existing, remedy),
    )
