"""JSON in which no object has a key twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from groundup.core.errors import DataError

__all__ = ["parse_json", "parse_several", "type_name"]


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The JSON.
        where: What to call it in messages.

    Raises:
        DataError: If it is none, or an object in it has a key twice.
    """
    try:
        return _decode(text)
    except _DAMAGE as error:
        raise _put_into_words(error, text, where) from None


def parse_several(text: str, where: str) -> list[Any]:
    """Return the values of JSON texts that are written one after the other, at least one; arguments
    and errors as ``parse_json``."""
    found: list[Any] = []
    end = _skip_blanks(text, 0)
    try:
        while not found or end < len(text):
            # objects alone are rows: after another value, something is wrong with it
            if found and not (isinstance(found[-1], dict) and text[end] == "{"):
                raise json.JSONDecodeError("Extra data", text, end)
            value, end = _decoder.raw_decode(text, end)
            found.append(value)
            end = _skip_blanks(text, end)
    except _DAMAGE as error:
        raise _put_into_words(error, text, where) from None
    return found


def type_name(value: Any) -> str:
    """Return what to call the type of a value in messages."""
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


def _put_into_words(error: Exception, text: str, where: str) -> DataError:
    if isinstance(error, _KeyTwiceError):
        return DataError(where, f"an object has {error}", "Give every key a name of its own")
    if not isinstance(error, json.JSONDecodeError):
        return DataError(where, "JSON nested too deeply to read", "Correct or remove it")
    at = f"column {error.colno}"
    if error.lineno > 1:
        at = f"line {error.lineno} {at}"
    return DataError(where, f"not JSON at {at}: {error.msg}", _remedy_for(text, error))


def _remedy_for(text: str, error: json.JSONDecodeError) -> str:
    if _PYTHON.match(text):
        return "It is written as Python prints it: write it with json.dumps"
    if text[error.pos :].strip() == "," and text.startswith("{"):
        return "Remove the commas at the ends of the lines: sed 's/,[[:space:]]*$//' OLD > NEW"
    if error.msg == "Extra data" and text[error.pos :].lstrip(" ,").startswith("{"):
        return "Write each object on a line of its own, without a comma after it"
    if error.msg.startswith("Invalid control character"):
        return "Write tabs and line ends inside a text as \\t and \\n"
    if text.lstrip().startswith("<"):
        return (
            "It looks like a web page, perhaps an error in place of the file: fetch it again, or"
            " name it .html"
        )
    if _SCRIPT.match(text):
        return "It is JavaScript: remove what is before the first bracket and after the last"
    if text.strip() in ("[", "[{", "{"):
        return "If one list or object goes over many lines, name the file .json"
    if error.pos == 0 and text[:1] not in "[{":
        return "If it is of another kind, give the file its suffix, such as .csv or .txt"
    return "Correct or remove it"


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


class _KeyTwiceError(Exception):
    pass


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _KeyTwiceError(f"{count} keys named {name!r}")
    return found


# made once: json.loads makes one at each call, which takes longer than the hook
_decoder = json.JSONDecoder(object_pairs_hook=_refuse_twice)
_decode = _decoder.decode
_DAMAGE = (_KeyTwiceError, json.JSONDecodeError, RecursionError)
_SCRIPT = re.compile(r"\s*[\w.$ ]+[=(]\s*[\[{]")
_PYTHON = re.compile(r"\s*\[?\s*\{'")
