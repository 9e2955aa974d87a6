"""Tools and the calls of them, in the shapes in which people keep them. Pure functions of one row's
values."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import ToolCall
from groundup.data.reading.files import check_text

__all__ = ["calls_of", "parse_json", "tools_of"]

_CALL = 'a call is {"name": ..., "arguments": {...}}, alone or under the key function'
# index counts the calls of an answer, whose order says the same
_CALL_KEYS = {"name", "arguments", "parameters", "id", "type", "function", "index"}
_TOOL = (
    'a tool is {"type": "function", "function": {"name": ..., "description": ..., "parameters":'
    " {...}}}"
)


def tools_of(row: Mapping[str, Any], where: str) -> tuple[dict[str, Any], ...]:
    """Return the tools in a row's column ``tools`` (or ``functions``), a list or the same as JSON
    text.

    Args:
        row: The columns and their values.
        where: File and row, for messages.

    Raises:
        DataError: If they are no list of tools with a name each.
    """
    # functions is what OpenAI called them before there were tools
    column = "tools" if row.get("tools") else "functions"
    value = row.get(column)
    if isinstance(value, str):
        value = parse_json(value.strip() or "[]", f"column {column!r}", where)
    if not value:
        return ()
    if not isinstance(value, list):
        raise DataError(
            where, f"column {column!r} is not a list but {_show(value)}", _TOOL.capitalize()
        )
    return tuple(_check_tool(tool, f"tool {number}", where) for number, tool in enumerate(value, 1))


def calls_of(value: Any, what: str, where: str) -> tuple[ToolCall, ...]:
    """Return calls from a list of them, one of them, or either as JSON text; arguments may be JSON
    text, too.

    Args:
        value: What the row holds.
        what: What to call it, for messages.
        where: File and row, for messages.

    Raises:
        DataError: If that is no call.
    """
    if isinstance(value, str):
        value = parse_json(value, what, where)
    calls = value if isinstance(value, list) else [value]
    return tuple(_to_call(call, what, where) for call in calls)


def _check_tool(tool: Any, what: str, where: str) -> dict[str, Any]:
    described = tool
    if isinstance(tool, Mapping):  # OpenAI's form names the function inside, older ones at once
        described = tool.get("function", tool)
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise DataError(where, f"{what} has no name: {_show(tool)}", _TOOL.capitalize())
    if "function" in tool:
        return dict(tool)
    return {"type": "function", "function": dict(tool)}


def _to_call(call: Any, what: str, where: str) -> ToolCall:
    described = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise DataError(where, f"{what} calls no tool by name: {_show(call)}", _CALL.capitalize())
    given = {key for each in (call, described) for key, v in each.items() if v is not None}
    if odd := sorted(given - _CALL_KEYS):
        raise DataError(
            where,
            f"{what} has the key {odd[0]!r}; allowed: {', '.join(sorted(_CALL_KEYS))}",
            "Remove it",
        )
    arguments = described.get("arguments", described.get("parameters"))
    if isinstance(arguments, str):
        # OpenAI keeps arguments as JSON text, empty where a tool takes none
        arguments = parse_json(arguments.strip() or "{}", f"the arguments of {what}", where)
    if not isinstance(arguments, Mapping):
        raise DataError(
            where,
            f"the arguments of {what} are no object but {_show(arguments)}",
            _CALL.capitalize(),
        )
    # templates of Mistral need the identity, others do without
    identity = call.get("id") or ""
    return ToolCall(check_text(described["name"], where, what), dict(arguments), str(identity))


def parse_json(text: str, what: str, where: str) -> Any:
    """Return what JSON text in a row means, or the same as Python prints it.

    Raises:
        DataError: If it is neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        # tables that pandas writes hold lists so; no code is run, only values are read
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(
            where,
            f"{what} cannot be read as JSON: {_show(text)}",
            "Correct the row, or write it with json.dumps",
        ) from None


def _show(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)[:60]
