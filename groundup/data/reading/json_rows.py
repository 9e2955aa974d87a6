"""The rows of a JSON value that is a whole file: a list of them, or one of the ways in which people
and pandas put a table into one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from groundup.data.splitting.split_names import split_word

__all__ = ["SPLIT_KEY", "JsonRows", "as_row", "rows_in", "wraps_rows"]

SPLIT_KEY = "split"
"""The column that rows of {"train": [...], "test": [...]} get."""

# keys whose lists are the turns of one chat, or the tools that it may call
_TURNS = ("messages", "conversations", "conversation", "turns", "dialogue", "dialog", "history")
_TOOLS = ("tools", "functions")
_PARTS = (*_TURNS, *_TOOLS, "prompt", "completion", "chosen", "rejected", "answers")
_SPLIT_ORIENT = {"columns", "data"}  # of pandas' to_json(orient="split"); index may be missing
_FEWEST = 3  # objects of the same keys that are rows by their names


class JsonRows(NamedTuple):
    """Rows, and what is to be said of the object that they were in."""

    rows: list[Any]
    note: str = ""


def rows_in(value: Any) -> JsonRows | None:
    """Return the rows of a JSON file's value; None where it is no list and no object.

    ``{"data": [...]}`` holds rows under one key, ``{"train": [...], "test": [...]}`` those of
    splits, which get the column ``split``. pandas writes an object of columns, of rows by their
    numbers, or ``{"columns": ..., "data": ...}``. Any other object is one row.
    """
    if isinstance(value, list):
        return JsonRows(value)
    if not isinstance(value, dict):
        return None
    # the most certain first: each leaves to the next what it is not sure of
    for read in (_rows_of_splits, _rows_under_a_key, _rows_of_pandas, _rows_by_name):
        found = read(value)
        if found is not None:
            return found
    return JsonRows([value])


def wraps_rows(value: Mapping[str, Any]) -> bool:
    """Whether an object, all that a file holds, is not one row but has rows in it."""
    found = rows_in(dict(value))
    return found is not None and found.note != ""


def as_row(value: Any) -> Any:
    """Return a list of messages as a row that holds them; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        if all("role" in turn for turn in value):
            return {"messages": value}
        if all("from" in turn for turn in value):
            return {"conversations": value}
    return value


def _rows_of_splits(value: dict[str, Any]) -> JsonRows | None:
    lists = {key: rows for key, rows in value.items() if isinstance(rows, list)}
    inside = {
        key: found.rows
        for key, own in value.items()
        if split_word(key) and isinstance(own, dict) and (found := _rows_of_pandas(own, 1))
    }
    lists |= inside  # as the library datasets gives a data set as dictionaries
    if not lists or not all(split_word(key) and _are_objects(lists[key]) for key in lists):
        return None
    rows = [{**as_row(row), SPLIT_KEY: key} for key, own in lists.items() for row in own]
    # a row that says it too is left to say it, and of a single split there is nothing to say
    if len(lists) == 1 or any(SPLIT_KEY in row for own in lists.values() for row in own):
        rows = [as_row(row) for own in lists.values() for row in own]
    named = ", ".join(f"{key} {len(own):,}" for key, own in lists.items())
    return JsonRows(rows, f"files whose rows are under the keys of splits ({named})")


def _rows_under_a_key(value: dict[str, Any]) -> JsonRows | None:
    lists = [key for key, rows in value.items() if isinstance(rows, list) and _are_objects(rows)]
    if len(value) == 1 and isinstance(only := next(iter(value.values())), dict):
        found = rows_in(only)
        return found if found is not None and found.note else None
    # a row of its own: the turns of a chat, perhaps next to the tools that it may call
    if len(lists) != 1 or any(_are_turns(value[key]) for key in lists):
        return None
    if lists[0] in _TOOLS:
        return None
    # such as a version or a licence: said, not lost in silence
    others = ", ".join(key for key in value if key != lists[0])
    note = f"files whose rows are under the key {lists[0]!r}"
    return JsonRows(value[lists[0]], note + (f" (not read: {others})" if others else ""))


def _rows_of_pandas(value: dict[str, Any], least: int = 2) -> JsonRows | None:
    """Return the rows of an object of columns.

    Args:
        value: The object.
        least: Lists of values that are columns; a single one may be a row's.
    """
    # to_json(orient="split") and, without one, to_json() of a frame
    names = value.get("columns")
    data = value.get("data")
    if value.keys() >= _SPLIT_ORIENT and isinstance(names, list) and isinstance(data, list):
        if all(isinstance(row, list) and len(row) == len(names) for row in data):
            rows = [dict(zip(map(str, names), row, strict=True)) for row in data]
            return JsonRows(rows, "files of columns and data, as pandas splits them")
        return None
    columns = list(value.values())
    note = "files of columns, not of rows"
    if all(isinstance(own, dict) and own for own in columns):
        first = columns[0].keys()
        if all(key.isdigit() for key in first) and all(own.keys() == first for own in columns):
            return JsonRows([_row(value, number) for number in first], note) if columns else None
        return None
    lengths = {len(own) if isinstance(own, list) else -1 for own in columns}
    if len(columns) < least or len(lengths) > 1 or not lengths.isdisjoint((-1, 0)):
        return None
    # the turns or the words of one row are lists too
    if not value.keys().isdisjoint(_PARTS) and not all(_are_lists(own) for own in columns):
        return None
    return JsonRows([_row(value, number) for number in range(len(columns[0]))], note)


def _row(columns: Mapping[str, Any], number: Any) -> dict[str, Any]:
    return {name: own[number] for name, own in columns.items()}


def _rows_by_name(value: dict[str, Any]) -> JsonRows | None:
    rows = list(value.values())
    if not rows or not _are_objects(rows):
        return None
    # two objects of the same keys may be parts of one row
    numbered = all(key.isdigit() for key in value)
    alike = len(rows) >= _FEWEST and all(row.keys() == rows[0].keys() for row in rows)
    return JsonRows(rows, "files of rows by their names") if numbered or alike else None


def _are_objects(rows: list[Any]) -> bool:
    return bool(rows) and all(isinstance(as_row(row), dict) for row in rows)


def _are_turns(rows: list[Any]) -> bool:
    return as_row(rows) is not rows


def _are_lists(rows: list[Any]) -> bool:
    return all(isinstance(row, list) for row in rows)
