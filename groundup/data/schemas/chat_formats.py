"""The shapes in which people keep conversations, recognised and turned into messages. Pure
functions of one row."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message
from groundup.data.reading.files import check_text
from groundup.data.reading.json_text import type_name
from groundup.data.schemas.messages import REASONING, add_reasoning, read_turns, refuse_media
from groundup.data.schemas.tool_calls import parse_json

__all__ = ["FORMATS", "ChatFormat", "check_turns", "recognise", "to_messages", "unused_columns"]

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
_COLUMNS: dict[ChatFormat, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "input", "output", "history"),
    "pairs": (),
    "text": ("text",),
}
_SHAPE = '{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'
_JSON_TURNS = re.compile(r"\s*\[\s*\{\s*[\"'](role|from|content|value)[\"']\s*:")
# Which turns may follow which: what chat templates were written for.
_NEXT = {
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


# of each row is asked, and the rows of a file have the same columns
@lru_cache(maxsize=1000)
def recognise(columns: tuple[str, ...]) -> ChatFormat | None:
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
    row: Mapping[str, Any],
    form: ChatFormat | Literal["auto"],
    where: str,
    ignore: Collection[str] = (),
) -> tuple[Message, ...]:
    """Return the turns of one row, checked; none where the row is plain text.

    Args:
        row: The columns and their values.
        form: The format, or ``"auto"`` to recognise it.
        where: File and row, for messages.
        ignore: Keys of messages that are left out.

    Raises:
        DataError: If the row has no such format, an unknown role, no content, turns in an
            impossible order, or pictures or sounds.
    """
    known = recognise(tuple(row)) if form == "auto" else form
    if known is None:
        raise DataError(
            where,
            f"no known kind of conversation has the columns {', '.join(row) or '(none)'}; known:"
            f" {_list_formats()}",
            f"Rename the columns; or write each row as {_SHAPE}",
        )
    match known:
        case "messages" | "sharegpt":
            column = "messages" if known == "messages" else "conversations"
            turns = read_turns(_require_column(row, column, known, where), where, ignore)
            # an empty system prompt is none, which templates write in their own way
            turns = [turn for turn in turns if turn.role != "system" or turn.content.strip()]
            turns = [*_system_message(row, known, where), *turns]
        case "alpaca":
            turns = _alpaca_messages(row, where)
        case "pairs":
            turns = _pair_messages(row, where, ignore)
        case "text":
            refuse_media(row, (), where)
            return ()
    refuse_media(row, turns, where)
    check_turns(turns, where)
    return tuple(turns)


def unused_columns(row: Mapping[str, Any], form: ChatFormat) -> list[str]:
    """Return the columns of a row in which there is something, and which its format does not
    read."""
    used = _used_columns(tuple(row), form)
    return [name for name, value in row.items() if name not in used and value not in ("", [], {})]


@lru_cache(maxsize=1000)
def _used_columns(columns: tuple[str, ...], form: ChatFormat) -> frozenset[str]:
    if form == "text":
        return frozenset(("text",))
    used = {*_COLUMNS[form], "system", "tools", "functions"}
    if form == "pairs":
        used |= {*_pair_of(columns)}
    if form in ("alpaca", "pairs"):
        used |= {*REASONING}
    return frozenset(used)


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


def _system_message(row: Mapping[str, Any], form: ChatFormat, where: str) -> list[Message]:
    if not _is_given(row.get("system")):
        return []
    return [Message("system", _text_of_column(row, "system", form, where))]


def _is_given(value: Any) -> bool:
    """Whether there is something in an optional column; 0 and false are, and no text."""
    return value not in (None, "", [], {})


def _alpaca_messages(row: Mapping[str, Any], where: str) -> list[Message]:
    turns = _system_message(row, "alpaca", where)
    history = row.get("history") or []
    if isinstance(history, str):  # as .csv has it
        history = parse_json(history, "column 'history'", where)
    if not isinstance(history, list):
        problem = f"column 'history' is {type_name(history)}; allowed: a list of pairs"
        raise DataError(where, problem, "Correct the row")
    for number, pair in enumerate(history, 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(
                where, f"history {number} is not a pair [question, answer]", "Correct the row"
            )
        turns.append(Message("user", check_text(pair[0], where, f"history {number}")))
        turns.append(Message("assistant", check_text(pair[1], where, f"history {number}")))
    question = _text_of_column(row, "instruction", "alpaca", where)
    # the instruction and what it is about, as Alpaca's own prompt puts them
    if _is_given(row.get("input")):
        question = f"{question}\n{_text_of_column(row, 'input', 'alpaca', where)}"
    return [
        *turns,
        Message("user", question),
        _answer_of(row, _text_of_column(row, "output", "alpaca", where), where),
    ]


def _answer_of(row: Mapping[str, Any], text: str, where: str) -> Message:
    """Return the answer of a row, with the reasoning that a column of the row holds."""
    answer = Message("assistant", text)
    for column in REASONING:
        if row.get(column):
            said = check_text(row[column], where, f"column {column!r}")
            answer = add_reasoning(answer, said, f"column {column!r}", where)
    return answer


def _pair_of(columns: Collection[str]) -> tuple[str, str]:
    return next((pair for pair in _PAIRS if set(pair) <= set(columns)), _PAIRS[0])


def _pair_messages(
    row: Mapping[str, Any], where: str, ignore: Collection[str] = ()
) -> list[Message]:
    asked, answered = _pair_of(row)
    prompt = _require_column(row, asked, "pairs", where)
    completion = _require_column(row, answered, "pairs", where)
    turns = _system_message(row, "pairs", where)
    both = (prompt, completion)
    if all(isinstance(each, str) and _JSON_TURNS.match(each) for each in both):  # as .csv has it
        prompt = parse_json(prompt, f"column {asked!r}", where)
        completion = parse_json(completion, f"column {answered!r}", where)
    if isinstance(prompt, list) and isinstance(completion, list):  # both as lists of messages
        # as TRL has it: a prompt may hold earlier answers, which are context and not learned
        read = [
            replace(turn, trained=turn.role != "assistant")
            for turn in read_turns(prompt, where, ignore)
        ]
        return [*turns, *read, *read_turns(completion, where, ignore)]
    return [
        *turns,
        Message("user", check_text(prompt, where, f"column {asked!r}")),
        _answer_of(row, check_text(completion, where, f"column {answered!r}"), where),
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
