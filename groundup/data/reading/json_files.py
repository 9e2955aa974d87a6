"""The rows of .jsonl and .json files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile
from groundup.data.reading.encodings import decode_lines
from groundup.data.reading.json_rows import as_row, rows_in, wraps_rows
from groundup.data.reading.json_text import parse_json, parse_several, type_name

__all__ = ["read_json_file", "read_json_lines"]

_Rows = Iterator[tuple[int, str, dict[str, Any]]]


def read_json_lines(file: DataFile, lines: Iterable[str]) -> _Rows:
    """Yield (number from 1, where, row) of a file with an object a line; empty lines are counted.

    Raises:
        DataError: Naming the line that holds none.
    """
    for number, line in enumerate(lines, 1):
        if line.isspace():
            file.notes["empty lines"] += 1
            continue
        where = f"{file.path} line {number}"
        yield number, where, _require_object(parse_json(line.rstrip("\r\n"), where), where)


def read_json_file(file: DataFile, handle: io.BufferedReader) -> _Rows:
    """Yield (number from 1, where, row) of a .json file: one value that holds the rows, see
    ``rows_in``, or an object a line; what of the object is not read is noted.

    Raises:
        DataError: If it is no JSON, or holds no rows.
    """
    lines = list(decode_lines(file, handle))
    text = "".join(lines)
    # Many keep lines of JSON in files called .json; a list begins with a bracket.
    first, *following = [line.strip() for line in lines if not line.isspace()] or [""]
    if first.startswith("{") and following and first.endswith("}"):
        yield from read_json_lines(file, lines)
        return
    # one value, and so whole in memory: who has more than fits keeps it as .jsonl
    values = parse_several(text, str(file.path))
    if len(values) == 1 and first.startswith("{") and not following and not wraps_rows(values[0]):
        yield from read_json_lines(file, lines)
        return
    found = rows_in(values[0])
    if len(values) > 1:
        found = rows_in(values)
    if found is None:
        raise DataError(
            str(file.path),
            f"the file holds {type_name(values[0])}; allowed: a list of objects, or one object a"
            " line",
            "Put the rows into a list",
        )
    if found.note:
        file.notes[found.note] += 1
    for number, row in enumerate(found.rows, 1):
        where = f"{file.path} row {number}"
        yield number, where, _require_object(row, where)


def _require_object(value: Any, where: str) -> dict[str, Any]:
    row = as_row(value)
    if not isinstance(row, dict):
        raise DataError(
            where,
            f"the row is {type_name(value)}; allowed: an object with named columns",
            'Write {"text": ...}, or {"messages": [...]} for a chat',
        )
    return row
