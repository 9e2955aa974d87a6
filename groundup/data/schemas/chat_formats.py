"""The shapes in which people keep conversations, recognised and turned into messages. Pure
functions of one row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message, ToolCall
from groundup.data.reading.files import check_text
from groundup.data.schemas.tool_calls import calls_of

__all__ = ["FORMATS", "ChatFormat", "check_turns", "recognise", "to_messages"]

ChatFormat = Literal["messages", "sharegpt", "alpaca", "pairs", "text"]
FORMATS: dict[ChatFormat, str] = {
    "messages": "messages: [{role, content, tool_calls}], tools",
    "sharegpt": "conversations: [{from, value}], system, tools",
    "alpaca": "instruction, input, output, system, history",
    "pairs": (
        "prompt, completion (or prompt, response; question, answer), as texts or as lists of"
        " messages"
    ),
    "text": "text, learned as it is",
}
# columns that crawled and exported texts have next to the text itself
_BESIDE_TEXT = {"text", "id", "url", "source", "title", "timestamp", "meta", "metadata"}
# in this order, where a row has several
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"))
# Roles of OpenAI, ShareGPT, Llama (ipython) and function calls before there were tools.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
    "function_response": "tool",
    "function": "tool",
    "ipython": "tool",
}
# OpenAI's name first, then those of other trainers
_WEIGHTS = ("weight", "loss_weight", "train")
# Which turns may follow which: what chat templates were written for.
_NEXT = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


def recognise(columns: Sequence[str]) -> ChatFormat | None:
    """Return the format of rows with these columns, or None."""
    present = set(columns)
    # preferences hold messages too, but half of their answers are not to be learned
    if {"chosen", "rejected"} <= present:
        return None
    # the richest shape first: rows that were converted often keep their old columns too
    if "messages" in present:
        return "messages"
    if "conversations" in present:
        return "sharegpt"
    if {"instruction", "output"} <= present:
        return "alpaca"
    if any(present.issuperset(pair) for pair in _PAIRS):
        return "pairs"
    # Only where nothing else is there: a table with a column text may be meant for something else.
    return "text" if "text" in present and present <= _BESIDE_TEXT else None


def to_messages(
    row: Mapping[str, Any], form: ChatFormat | Literal["auto"], where: str
) -> tuple[Message, ...]:
    """Return the turns of one row, checked; none where the row is plain text.

    Args:
        row: The columns and their values.
        form: The format, or ``"auto"`` to recognise it.
        where: File and row, for messages.

    Raises:
        DataError: If the row has no such format, an unknown role, no content, or turns in an
            impossible order.
    """
    known = recognise(list(row)) if form == "auto" else form
    if known is None:
        raise DataError(
            where,
            f"no known kind of conversation has the columns {', '.join(row) or '(none)'}; known:"
            f" {_list_formats()}",
            "Rename the columns",
        )
    match known:
        case "messages":
            turns = _to_messages(_require_column(row, "messages", known, where), where)
        case "sharegpt":
            turns = _to_messages(_require_column(row, "conversations", known, where), where)
            if row.get("system"):
                turns.insert(
                    0, Message("system", check_text(row["system"], where, "column 'system'"))
                )
        case "alpaca":
            turns = _alpaca_messages(row, where)
        case "pairs":
            turns = _pair_messages(row, where)
        case "text":
            return ()
    check_turns(turns, where)
    return tuple(turns)


def check_turns(turns: Sequence[Message], where: str) -> None:
    """Refuse conversations that a model cannot learn to answer.

    Raises:
        DataError: If there is no turn, an empty turn, roles that do not alternate, or an end
            without an answer.
    """
    if not turns:
        raise DataError(
            where,
            "the conversation is empty",
            "Remove the row or give it a user and an assistant turn",
        )
    for number, turn in enumerate(turns, 1):
        if not turn.content.strip() and not turn.tool_calls and turn.role != "tool":
            raise DataError(
                where,
                f"turn {number} ({turn.role}) has no content",
                "Remove the row or fill in the turn",
            )
    if turns[0].role not in ("system", "user"):
        raise DataError(
            where,
            f"turn 1 is the {turns[0].role}'s; allowed: system or user",
            "Remove or reorder the turn",
        )
    for number, (turn, following) in enumerate(pairwise(turns), 2):
        if following.role not in _NEXT[turn.role]:
            problem = f"turn {number} is the {following.role}'s after the {turn.role}'s"
            if following.role == turn.role:
                problem = f"turns {number - 1} and {number} are both the {turn.role}'s"
            allowed = " or ".join(_NEXT[turn.role])
            raise DataError(
                where,
                f"{problem}; allowed after {turn.role}: {allowed}",
                "Join or reorder the turns",
            )
    if turns[-1].role != "assistant":
        raise DataError(
            where,
            f"the last turn is the {turns[-1].role}'s; allowed: the assistant's",
            "Remove it or add the answer",
        )


def _to_messages(value: Any, where: str) -> list[Message]:
    if not isinstance(value, list):
        raise DataError(
            where,
            f"the turns are not a list but {json.dumps(value, default=str)[:60]}",
            "Give a list of turns",
        )
    turns: list[Message] = []
    for number, given in enumerate(value, 1):
        turn = _to_message(given, f"turn {number}", where)
        if (
            turns
            and turn.tool_calls
            and not turn.content
            and turns[-1].role == "assistant"
            and not turns[-1].tool_calls
        ):
            # ShareGPT says something in one turn and calls in the next: templates want one turn
            turns[-1] = replace(turns[-1], tool_calls=turn.tool_calls)
        else:
            turns.append(turn)
    return turns


def _to_message(turn: Any, which: str, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(
            where,
            f"{which} is not an object but {json.dumps(turn, default=str)[:60]}",
            "Give role and content",
        )
    role = turn.get("role", turn.get("from"))
    if role is None:
        raise DataError(
            where,
            f"{which} has no role (keys: {', '.join(map(str, turn))})",
            "Add role: user or assistant",
        )
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(
            where,
            f"{which} has the unknown role {role!r}; {did_you_mean(str(role), _ROLES)}allowed:"
            f" {', '.join(_ROLES)}",
            "Rename the role",
        )
    # ShareGPT calls it value
    content = turn.get("content", turn.get("value"))
    if role == "function_call":
        return Message(
            "assistant",
            "",
            calls_of(content, which, where),
            trained=_is_trained(turn, which, where),
        )
    called = turn.get("tool_calls") or turn.get("function_call") or ()
    calls: tuple[ToolCall, ...] = ()
    if called:
        calls = calls_of(called, f"a tool call of {which}", where)
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        found = [part.get("value") for part in content if part.get("type") == "tool_call"]
        calls += tuple(
            call for value in found for call in calls_of(value, f"a tool call of {which}", where)
        )
    if content is None and not calls:
        raise DataError(
            where, f"{which} ({role}) has no content", "Remove the row or fill in the turn"
        )
    # what a tool returned may be any JSON, and templates put it in as text
    if _ROLES[role] == "tool" and not isinstance(content, str | list):
        content = json.dumps(content, ensure_ascii=False)
    text = ""
    if content is not None:
        text = _text_of_content(content, f"the content of {which}", where)
    name, call = (str(turn.get(key) or "") for key in ("name", "tool_call_id"))
    return Message(_ROLES[role], text, calls, name, call, _is_trained(turn, which, where))


def _is_trained(turn: Mapping[str, Any], which: str, where: str) -> bool:
    """Return what a turn's own weight says: 1 is learned, and 0 only read."""
    for key in _WEIGHTS:
        weight = turn.get(key)
        # no share of a loss: a weight of 0.5 would be a feature that nobody asked for, done wrong
        if weight is not None and weight not in (0, 1):
            raise DataError(
                where,
                f"{which} has {key} {json.dumps(weight, default=str)[:40]}; allowed: 0 or 1",
                "Correct it",
            )
        if weight == 0:
            return False
    return True


def _text_of_content(content: Any, what: str, where: str) -> str:
    """Return text, also from a list of parts where all of them are text, reasoning or calls."""
    if not isinstance(content, list) or not all(
        isinstance(part, Mapping) and _is_known_part(part) for part in content
    ):
        return check_text(content, where, what)
    text = ""
    for part in content:
        if part.get("type") != "tool_call":
            said = check_text(part.get("text", part.get("value")), where, what)
            if part.get("type") == "reasoning":
                # as Qwen and DeepSeek write it, whose templates know these marks
                said = f"<think>\n{said.strip()}\n</think>\n\n"
            text += said
    return text


def _is_known_part(part: Mapping[str, Any]) -> bool:
    return part.get("type", "text") in ("text", "reasoning", "tool_call") and bool(
        {"text", "value"} & part.keys()
    )


def _system_message(row: Mapping[str, Any], form: ChatFormat, where: str) -> list[Message]:
    if not row.get("system"):
        return []
    return [Message("system", _text_of_column(row, "system", form, where))]


def _alpaca_messages(row: Mapping[str, Any], where: str) -> list[Message]:
    turns = _system_message(row, "alpaca", where)
    for number, pair in enumerate(row.get("history") or [], 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(
                where, f"history {number} is not a pair [question, answer]", "Correct the row"
            )
        turns.append(Message("user", check_text(pair[0], where, f"history {number}")))
        turns.append(Message("assistant", check_text(pair[1], where, f"history {number}")))
    question = _text_of_column(row, "instruction", "alpaca", where)
    # the instruction and what it is about, as Alpaca's own prompt puts them
    if row.get("input"):
        question = f"{question}\n{_text_of_column(row, 'input', 'alpaca', where)}"
    return [
        *turns,
        Message("user", question),
        Message("assistant", _text_of_column(row, "output", "alpaca", where)),
    ]


def _pair_messages(row: Mapping[str, Any], where: str) -> list[Message]:
    asked, answered = next((pair for pair in _PAIRS if set(pair) <= set(row)), _PAIRS[0])
    prompt = _require_column(row, asked, "pairs", where)
    completion = _require_column(row, answered, "pairs", where)
    if isinstance(prompt, list) and isinstance(completion, list):  # both as lists of messages
        # as TRL has it: a prompt may hold earlier answers, which are context and not learned
        read = [
            replace(turn, trained=turn.role != "assistant") for turn in _to_messages(prompt, where)
        ]
        return [*read, *_to_messages(completion, where)]
    turns = _system_message(row, "pairs", where)
    return [
        *turns,
        Message("user", check_text(prompt, where, f"column {asked!r}")),
        Message("assistant", check_text(completion, where, f"column {answered!r}")),
    ]


def _text_of_column(row: Mapping[str, Any], column: str, form: ChatFormat, where: str) -> str:
    return check_text(_require_column(row, column, form, where), where, f"column {column!r}")


def _require_column(row: Mapping[str, Any], column: str, form: ChatFormat, where: str) -> Any:
    if column not in row:
        raise DataError(
            where,
            f"there is no column {column!r}, which {form} conversations need;"
            f" {did_you_mean(column, row)}columns: {', '.join(row) or 'none'}",
            "Rename the columns or change format",
        )
    return row[column]


def _list_formats() -> str:
    return "; ".join(f"{name} ({shape})" for name, shape in FORMATS.items())
