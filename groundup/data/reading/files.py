"""Data files as rows: .txt .md .jsonl .json .csv .tsv .parquet, bare or in folders, compressed or
not, streamed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.core.errors import DataError, did_you_mean
from groundup.data.reading.compressed import DataFile, decode_lines, open_file
from groundup.data.reading.parquet import parquet_rows
from groundup.data.reading.plain_text import read_pieces

__all__ = [
    "COMPRESSIONS",
    "KINDS",
    "ROW_KINDS",
    "Cells",
    "Record",
    "check_text",
    "fingerprint",
    "list_files",
    "read_file",
    "read_records",
]

KINDS = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
ROW_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


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
        separator: The character between cells; None: a comma in .csv, a tab in .tsv, and no cells
            in .txt and .md.
        header: The first row names the columns; else they are called 1, 2, 3 ...
        quotes: Cells of .csv and .tsv may be quoted; else a quote is a character like others, as
            always in .txt.
    """

    separator: str | None = None
    header: bool = True
    quotes: bool = True


# ------------------------------------------------------------------------------------------ listing
def list_files(path: str | Path, kinds: Sequence[str] = KINDS) -> list[DataFile]:
    """Return the readable files of a path: itself, or everything below it, sorted by relative path.

    In a folder, hidden files, empty files and files of other kinds are passed over.

    Raises:
        DataError: If the path is missing, empty, of another kind, or a folder without a readable
            file.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise _missing_path(root)
    if root.is_file():
        return [_bare_file(root, kinds)]
    files = []
    for inner in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
        relative = inner.relative_to(root)
        kind, compression = _kind_of(inner)
        # hidden at any depth: .git and .ipynb_checkpoints hold copies of what is next to them
        hidden = any(part.startswith(".") for part in relative.parts)
        if kind in kinds and not hidden and inner.is_file() and inner.stat().st_size > 0:
            files.append(DataFile(inner, relative.as_posix(), kind, compression))
    if not files:
        found = sorted({_kind_of(p)[0] or p.name for p in root.rglob("*") if p.is_file()})
        have = "it has no files"
        if found:
            have = f"it has files of the kinds {', '.join(found[:8])}"
        raise DataError(
            str(root),
            f"no file to read in this folder; {have}; allowed: {', '.join(kinds)}",
            "Give another folder",
        )
    return files


def fingerprint(paths: Sequence[str | Path], kinds: Sequence[str] = KINDS) -> str:
    """Return a key that changes when a file below the paths is added, removed, resized or written
    to."""
    # By size and time, not content: hashing a large corpus at each start would take minutes. A file
    # that is written again without a change is tokenized again: that costs time but is never wrong.
    key = hashlib.sha256()
    for path in paths:
        for file in list_files(path, kinds):
            status = file.path.stat()
            key.update(
                f"{path}\0{file.relative}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
            )
    return key.hexdigest()


def _bare_file(path: Path, kinds: Sequence[str]) -> DataFile:
    kind, compression = _kind_of(path)
    # a named file of another kind is an error; in a folder it is passed over, as a README is
    if kind not in kinds:
        raise DataError(
            str(path),
            f"the suffix {kind or '(none)'!r} is not a kind of file that is read here; allowed:"
            f" {', '.join(kinds)}, each also with {', '.join(COMPRESSIONS)}",
            "Rename or convert the file",
        )
    if path.stat().st_size == 0:
        raise DataError(
            str(path), "the file is empty (0 bytes)", "Give a file with something in it"
        )
    return DataFile(path, path.name, kind, compression)


def _kind_of(path: Path) -> tuple[str, str]:
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    return (before, last) if last in COMPRESSIONS else (last, "")


def _missing_path(path: Path) -> DataError:
    # the first part of the path that is not there: what to correct may be a folder's name
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing.parent.parent:
        missing = missing.parent
    folder = missing.parent
    problem = f"there is no such file or folder; {folder.resolve()} has no {missing.name!r}"
    inside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if hint := did_you_mean(missing.name, inside).rstrip():
        problem += f"; {hint}"
    remedy = "Correct the path; it is taken relative to the current folder"
    return DataError(str(path), problem, remedy)


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

    A .txt or .md file is one row with the column ``columns[0]`` (or ``text``), or several where
    ``split_on`` is set. Rows are streamed, except from .json, which holds one list.

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
    for file in list_files(path, kinds):
        yield from read_file(file, columns=columns, split_on=split_on, cells=cells)


def read_file(
    file: DataFile,
    *,
    columns: Sequence[str] = (),
    split_on: str | None = None,
    cells: Cells = Cells(),
) -> Iterator[Record]:
    """Yield the rows of one file, in order; arguments and errors as ``read_records``."""
    empty = True
    for number, origin, fields in _rows_of(file, columns, split_on, cells):
        empty = False
        absent = [column for column in columns if column not in fields]
        if absent:
            raise _missing_column(origin, absent[0], list(fields))
        name = f"{file.relative}:{number}" if number else file.relative
        yield Record(fields, name, origin)
    # an empty file among many is more likely a failed download than meant
    if empty:
        problem = "nothing to read: no rows, or only white space"
        raise DataError(str(file.path), problem, "Give a file with content")


def check_text(value: Any, where: str, what: str) -> str:
    """Return ``value`` if it is text that UTF-8 can hold.

    Raises:
        DataError: If it is not a string, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        shown = json.dumps(value, default=str, ensure_ascii=False)[:60]
        raise DataError(
            where,
            f"{what} is {_type_name(value)} ({shown}); allowed: text",
            "Correct the row or name another column",
        )
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
        if file.kind in (".txt", ".md") and cells.separator is None:
            (column,) = columns[:1] or ("text",)
            for number, where, text in read_pieces(file, handle, split_on):
                yield number, where, {column: text}
        elif file.kind == ".jsonl":
            yield from _read_json_lines(file, handle)
        elif file.kind == ".json":
            yield from _read_json_list(file, handle)
        else:
            yield from _read_delimited(file, handle, cells)


# --------------------------------------------------------------------------------------------- rows
def _read_json_lines(
    file: DataFile, handle: io.BufferedReader
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for number, line in enumerate(decode_lines(file, handle), 1):
        if line.strip():
            where = f"{file.path} line {number}"
            yield number, where, _require_object(_parse_json(line.rstrip("\r\n"), where), where)


def _read_json_list(
    file: DataFile, handle: io.BufferedReader
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    text = "".join(decode_lines(file, handle))
    # Many keep lines of JSON in files called .json; a list begins with a bracket.
    first, _, following = text.strip().partition("\n")
    if first.startswith("{") and (first.rstrip().endswith("}") or not following):
        lines: list[Any] = [
            (n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
        for number, line in lines:
            where = f"{file.path} line {number}"
            yield number, where, _require_object(_parse_json(line, where), where)
        return
    # one list, and so whole in memory: who has more than fits keeps it as .jsonl
    rows = _parse_json(text, str(file.path))
    if not isinstance(rows, list):
        raise DataError(
            str(file.path),
            f"the file holds {_type_name(rows)}; allowed: a list of objects, or one object a line",
            "Put the rows into a list",
        )
    for number, row in enumerate(rows, 1):
        where = f"{file.path} row {number}"
        yield number, where, _require_object(row, where)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}"
        if error.lineno > 1:
            at = f"line {error.lineno} {at}"
        raise DataError(where, f"not JSON at {at}: {error.msg}", "Correct or remove it") from None
    except RecursionError:
        raise DataError(where, "JSON nested too deeply to read", "Correct or remove it") from None


def _require_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            where,
            f"the row is {_type_name(value)}; allowed: an object with named columns",
            'Write {"text": ...}',
        )
    return value


def _read_delimited(
    file: DataFile, handle: io.BufferedReader, how: Cells
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    # a cell may hold a whole document; the library's limit is 131,072 characters
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    separator = how.separator or ("\t" if file.kind == ".tsv" else ",")
    quoting: Literal[0, 3] = csv.QUOTE_NONE
    if how.quotes and file.kind in (".csv", ".tsv"):
        quoting = csv.QUOTE_MINIMAL
    reader = csv.reader(
        decode_lines(file, handle), delimiter=separator, quoting=quoting, strict=True
    )
    header: list[str] = []
    number = ended = 0
    try:
        for cells in reader:
            ended = reader.line_num
            if not cells:
                continue
            if not header and how.header:
                header = cells
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
                    "Quote cells that hold the separator",
                )
            yield number, where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            problem = "a quote is opened in the row that begins here, and never closed"
            raise DataError(
                f"{file.path} line {ended + 1}", problem, "Close it, or remove it"
            ) from None
        raise DataError(
            f"{file.path} line {reader.line_num}",
            f"not {file.kind[1:]}: {error}",
            "Correct the line",
        ) from None


def _missing_column(where: str, column: str, existing: list[str]) -> DataError:
    return DataError(
        where,
        f"there is no column {column!r}; {did_you_mean(column, existing)}columns:"
        f" {', '.join(existing) or 'none'}",
        "Name the right column, or correct the row",
    )


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
