"""The shapes in which people keep conversations, recognised and turned into messages. Pure functions of one row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from groundup.core.errors import DataError, did_you_mean
from groundup.core.records import Message
from groundup.data.files import checked_text

__all__ = ["FORMATS", "ChatFormat", "check_turns", "recognise", "to_messages"]

ChatFormat = Literal["messages", "sharegpt", "alpaca", "pairs"]
FORMATS: dict[ChatFormat, str] = {
    "messages": "messages: [{role, content}]",
    "sharegpt": "conversations: [{from, value}]",
    "alpaca": "instruction, input, output",
    "pairs": "prompt, completion (or prompt, response; question, answer)",
}
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "observation": "tool",
}
_NEXT = {"system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("tool", "assistant")}


def recognise(columns: Sequence[str]) -> ChatFormat | None:
    """Return the format of rows with these columns, or None."""
    present = set(columns)
    if "messages" in present:
        return "messages"
    if "conversations" in present:
        return "sharegpt"
    if {"instruction", "output"} <= present:
        return "alpaca"
    return "pairs" if any(present.issuperset(pair) for pair in _PAIRS) else None


def to_messages(row: Mapping[str, Any], form: ChatFormat | Literal["auto"], where: str) -> tuple[Message, ...]:
    """Return the turns of one row, checked.

    Args:
        row: The columns and their values.
        form: The format, or ``"auto"`` to recognise it.
        where: File and row, for messages.

    Raises:
        DataError: If the row has no such format, an unknown role, no content, or turns in an impossible order.
    """
    known = recognise(list(row)) if form == "auto" else form
    if known is None:
        raise DataError(
            where,
            f"no known kind of conversation has the columns {', '.join(row) or '(none)'}; known: {_formats()}",
            "Rename the columns",
        )
    match known:
        case "messages":
            turns = _turns(_column(row, "messages", known, where), where)
        case "sharegpt":
            turns = _turns(_column(row, "conversations", known, where), where)
            if row.get("system"):
                turns.insert(0, Message("system", checked_text(row["system"], where, "column 'system'")))
        case "alpaca":
            turns = _alpaca(row, where)
        case "pairs":
            turns = _pair(row, where)
    check_turns(turns, where)
    return tuple(turns)


def check_turns(turns: Sequence[Message], where: str) -> None:
    """Refuse conversations that a model cannot learn to answer.

    Raises:
        DataError: If there is no turn, an empty turn, roles that do not alternate, or an end without an answer.
    """
    if not turns:
        raise DataError(where, "the conversation is empty", "Remove the row or give it a user and an assistant turn")
    for number, turn in enumerate(turns, 1):
        if not turn.content.strip():
            raise DataError(where, f"turn {number} ({turn.role}) has no content", "Remove the row or fill in the turn")
    if turns[0].role not in ("system", "user"):
        raise DataError(
            where, f"turn 1 is the {turns[0].role}'s; allowed: system or user", "Remove or reorder the turn"
        )
    for number, (turn, following) in enumerate(pairwise(turns), 2):
        if following.role not in _NEXT[turn.role]:
            problem = f"turn {number} is the {following.role}'s after the {turn.role}'s"
            if following.role == turn.role:
                problem = f"turns {number - 1} and {number} are both the {turn.role}'s"
            allowed = " or ".join(_NEXT[turn.role])
            raise DataError(where, f"{problem}; allowed after {turn.role}: {allowed}", "Join or reorder the turns")
    if turns[-1].role != "assistant":
        raise DataError(
            where, f"the last turn is the {turns[-1].role}'s; allowed: the assistant's", "Remove it or add the answer"
        )


def _turns(value: Any, where: str) -> list[Message]:
    if not isinstance(value, list):
        raise DataError(
            where, f"the turns are not a list but {json.dumps(value, default=str)[:60]}", "Give a list of turns"
        )
    return [_turn(turn, f"turn {number}", where) for number, turn in enumerate(value, 1)]


def _turn(turn: Any, which: str, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(
            where, f"{which} is not an object but {json.dumps(turn, default=str)[:60]}", "Give role and content"
        )
    role = turn.get("role", turn.get("from"))
    if role is None:
        raise DataError(
            where, f"{which} has no role (keys: {', '.join(map(str, turn))})", "Add role: user or assistant"
        )
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(
            where,
            f"{which} has the unknown role {role!r}; {did_you_mean(str(role), _ROLES)}allowed: {', '.join(_ROLES)}",
            "Rename the role",
        )
    content = turn.get("content", turn.get("value"))
    if content is None:
        raise DataError(where, f"{which} ({role}) has no content", "Remove the row or fill in the turn")
    return Message(_ROLES[role], _content(content, f"the content of {which}", where))


def _content(content: Any, what: str, where: str) -> str:
    """Return text, also from OpenAI's list of parts where all of them are text."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return "".join(checked_text(part["text"], where, what) for part in content)
    return checked_text(content, where, what)


def _alpaca(row: Mapping[str, Any], where: str) -> list[Message]:
    turns = [Message("system", _text(row, "system", "alpaca", where))] if row.get("system") else []
    for number, pair in enumerate(row.get("history") or [], 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(where, f"history {number} is not a pair [question, answer]", "Correct the row")
        turns.append(Message("user", checked_text(pair[0], where, f"history {number}")))
        turns.append(Message("assistant", checked_text(pair[1], where, f"history {number}")))
    question = _text(row, "instruction", "alpaca", where)
    if row.get("input"):
        question = f"{question}\n{_text(row, 'input', 'alpaca', where)}"
    return [*turns, Message("user", question), Message("assistant", _text(row, "output", "alpaca", where))]


def _pair(row: Mapping[str, Any], where: str) -> list[Message]:
    asked, answered = next((pair for pair in _PAIRS if set(pair) <= set(row)), _PAIRS[0])
    prompt, completion = _column(row, asked, "pairs", where), _column(row, answered, "pairs", where)
    if isinstance(prompt, list) and isinstance(completion, list):  # both as lists of messages
        return _turns([*prompt, *completion], where)
    turns = [Message("system", _text(row, "system", "pairs", where))] if row.get("system") else []
    return [
        *turns,
        Message("user", checked_text(prompt, where, f"column {asked!r}")),
        Message("assistant", checked_text(completion, where, f"column {answered!r}")),
    ]


def _text(row: Mapping[str, Any], column: str, form: ChatFormat, where: str) -> str:
    return checked_text(_column(row, column, form, where), where, f"column {column!r}")


def _column(row: Mapping[str, Any], column: str, form: ChatFormat, where: str) -> Any:
    if column not in row:
        raise DataError(
            where,
            f"there is no column {column!r}, which {form} conversations need;"
            f" {did_you_mean(column, row)}columns: {', '.join(row) or 'none'}",
            "Rename the columns or change format",
        )
    return row[column]


def _formats() -> str:
    return "; ".join(f"{name} ({shape})" for name, shape in FORMATS.items())
