"""One turn of a conversation, in the shapes in which people keep it, as a message: every key of it
is used, or refused by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message, ToolCall
from groundup.data.reading.files import check_text
from groundup.data.schemas.tool_calls import calls_of, parse_json

__all__ = ["REASONING", "add_reasoning", "read_turns", "refuse_media"]

# Roles of OpenAI, ShareGPT, Llama (ipython), Gemma (model) and function calls before there were
# tools.
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
    "function_response": "tool",
    "function": "tool",
    "ipython": "tool",
}
_PLAIN = ("system", "user", "assistant")
# The names of OpenAI's compatible servers, of TRL and of gpt-oss.
REASONING = ("reasoning_content", "reasoning", "thinking")
# OpenAI's name first, then those of other trainers
_WEIGHTS = ("weight", "loss_weight", "train", "training", "trainable", "loss")
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_CALLS = ("tool_calls", "function_call")
_KNOWN = {*_ROLE, *_CONTENT, *_CALLS, *_WEIGHTS, *REASONING, "name", "tool_call_id"}
_TEXTS = ("text", "value", "thinking", "reasoning", "content")
# Where rows of pictures and sounds keep them, and where they stand in the text.
_MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_PLACEHOLDER = re.compile(
    r"(?:^|\n)\s*(<(?:image|video|audio)>)(?!.*</)|(<(?:image|video|audio)>)\s*$"
)
_NO_MEDIA = "Chats are learned from text alone: remove the row"
_OTHER_PARTS = {
    "refusal": "Remove the row",
    "tool_use": "Write calls as tool_calls: [{function: {name, arguments}}] of the message",
    "tool_result": "Write what a tool returned as a message of its own, with role: tool",
}


def read_turns(value: Any, where: str, ignore: Collection[str] = ()) -> list[Message]:
    """Return the turns in a list of messages, or in the same as JSON text.

    Args:
        value: What the row holds.
        where: File and row, for messages.
        ignore: Keys of messages that are left out.

    Raises:
        DataError: If that is no list of messages, or a message has what cannot be used.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):  # as .csv has it
        value = parse_json(value, "the list of turns", where)
    if not isinstance(value, list):
        raise DataError(
            where,
            f"the turns are not a list but {json.dumps(value, default=str)[:60]}",
            "Give a list of turns",
        )
    turns: list[Message] = []
    for number, given in enumerate(value, 1):
        turn = _to_plain_message(given, number, where)
        if turn is None:
            turn = _to_message(given, f"turn {number}", where, ignore)
        alone = turn.tool_calls and not turn.content and not turn.reasoning
        if alone and turns and turns[-1].role == "assistant" and not turns[-1].tool_calls:
            # ShareGPT says something in one turn and calls in the next: templates want one turn
            turns[-1] = replace(turns[-1], tool_calls=turn.tool_calls)
        else:
            turns.append(turn)
    return turns


def add_reasoning(message: Message, reasoning: str, what: str, where: str) -> Message:
    """Return the assistant's message with what it thought before.

    Raises:
        DataError: If the message is not the assistant's, or holds another reasoning already.
    """
    reasoning = reasoning.strip()
    if not reasoning:
        return message
    if message.role != "assistant":
        raise DataError(
            where, f"{what} ({message.role}) has a reasoning; allowed: the assistant", "Remove it"
        )
    inside, end, _ = message.content.partition("</think>")
    if not end:
        return replace(message, reasoning=reasoning)
    if inside.removeprefix("<think>").strip() != reasoning:
        raise DataError(
            where, f"{what} has a reasoning next to another one in its content", "Keep one of them"
        )
    return message


def refuse_media(row: Mapping[str, Any], messages: Sequence[Message], where: str) -> None:
    """Refuse rows of pictures, videos and sounds, which would be learned without them.

    Raises:
        DataError: If a column holds some, or a question has a place for one.
    """
    for column in _MEDIA:
        if row.get(column):
            raise DataError(where, f"column {column!r} holds {column.rstrip('s')}s", _NO_MEDIA)
    for number, message in enumerate(messages, 1):
        if message.role != "user" or "<" not in message.content:
            continue
        if found := _PLACEHOLDER.search(message.content):
            which = found[1] or found[2]
            raise DataError(where, f"turn {number} (user) has a place for {which}", _NO_MEDIA)


def _to_plain_message(turn: Any, number: int, where: str) -> Message | None:
    """Return a message of nothing but a role and a text, as most are, or None for another: with
    these alone no other key is looked for."""
    if not isinstance(turn, dict) or len(turn) != 2:
        return None
    role, text = turn.get("role"), turn.get("content")
    if role not in _PLAIN or not isinstance(text, str):
        return None
    return Message(role, check_text(text, where, f"the content of turn {number}"))


def _to_message(turn: Any, which: str, where: str, ignore: Collection[str]) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(
            where,
            f"{which} is not an object but {json.dumps(turn, default=str)[:60]}",
            "Give role and content",
        )
    # Parquet gives every message the keys of all of them
    turn = {key: v for key, v in turn.items() if v is not None and key not in ignore}
    role = _role_of(turn, which, where)
    # ShareGPT calls it value
    content = _pick(turn, _CONTENT, which, where)
    called = _pick(turn, _CALLS, which, where) or ()
    calls: tuple[ToolCall, ...] = ()
    if role == "function_call":
        calls, content = calls_of(content, which, where), ""
    elif called:
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
    if calls and _ROLES[role] != "assistant":
        raise DataError(
            where, f"{which} ({role}) calls a tool; allowed: the assistant", "Remove it"
        )
    # what a tool returned may be any JSON, and templates put it in as text
    if _ROLES[role] == "tool" and not isinstance(content, str | list):
        content = json.dumps(content, ensure_ascii=False)
    reasoning, text = "", ""
    if content is not None:
        reasoning, text = _read_content(content, f"the content of {which}", where, ignore)
    name, call = (str(turn.get(key) or "") for key in ("name", "tool_call_id"))
    extra = {k: v for k, v in turn.items() if k not in _KNOWN and v not in ("", [], {})}
    trained = _is_trained(turn, _ROLES[role], which, where)
    message = Message(_ROLES[role], text, calls, name, call, trained, extra=extra)
    given = _pick(turn, REASONING, which, where)
    if given is not None:
        given = check_text(given, where, f"the reasoning of {which}")
        if reasoning and reasoning != given.strip():
            raise DataError(where, f"{which} has two reasonings, which differ", "Keep one of them")
        reasoning = given
    return add_reasoning(message, reasoning, which, where)


def _role_of(turn: Mapping[str, Any], which: str, where: str) -> str:
    role = _pick(turn, _ROLE, which, where)
    if role is None:
        raise DataError(
            where,
            f"{which} has no role (keys: {', '.join(map(str, turn))})",
            "Add role: user or assistant",
        )
    if isinstance(role, str) and role not in _ROLES:
        role = role.strip().lower()  # User, ASSISTANT
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(
            where,
            f"{which} has the unknown role {role!r}; {did_you_mean(str(role), _ROLES)}allowed:"
            f" {', '.join(_ROLES)}",
            "Rename the role",
        )
    return role


def _pick(turn: Mapping[str, Any], keys: Sequence[str], which: str, where: str) -> Any:
    """Return the value of the key that a turn has, of several with one meaning."""
    given = {key: turn[key] for key in keys if turn.get(key) not in (None, "", [])}
    values = list(given.values())
    if any(value != values[0] for value in values[1:]):
        raise DataError(
            where, f"{which} has {' and '.join(given)}, which differ", "Keep one of them"
        )
    return values[0] if values else next((turn[key] for key in keys if key in turn), None)


def _is_trained(turn: Mapping[str, Any], role: str, which: str, where: str) -> bool:
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
        if weight and role != "assistant":
            raise DataError(
                where,
                f"{which} ({role}) has {key} 1, but only the assistant's answers are learned",
                "Set it to 0, or remove it",
            )
    return True


def _read_content(content: Any, what: str, where: str, ignore: Collection[str]) -> tuple[str, str]:
    """Return reasoning and text, also from a list of parts where all of them are text, reasoning or
    calls."""
    if not isinstance(content, list):
        return "", check_text(content, where, what)
    reasoning, text = "", ""
    for given in content:
        part = {"type": "text", "text": given} if isinstance(given, str) else given
        kind, said = _read_part(part, what, where, ignore)
        if kind == "text":
            text += said
        elif kind != "tool_call" and not text and not reasoning:
            reasoning = said.strip()
        elif kind != "tool_call":
            # as Qwen and DeepSeek write it, whose templates know these marks
            text += f"<think>\n{said.strip()}\n</think>\n\n"
    return reasoning, text


def _read_part(part: Any, what: str, where: str, ignore: Collection[str]) -> tuple[str, str]:
    """Return the kind and the text of a part of a content."""
    if not isinstance(part, Mapping):
        check_text([part], where, what)
    part = {
        key: value
        for key, value in part.items()
        if value not in (None, [], {}) and key not in ignore
    }
    kind = part.get("type", "text")
    if kind in ("input_text", "output_text"):  # as OpenAI's Responses have it
        kind = "text"
    if kind not in ("text", "reasoning", "thinking", "tool_call"):
        raise DataError(
            where,
            f"{what} has a part of type {kind!r}; allowed: text, reasoning, thinking, tool_call",
            _OTHER_PARTS.get(kind, _NO_MEDIA),
        )
    key = next((name for name in _TEXTS if name in part), None)
    others = part.keys() - {"type", key, "signature"}
    if key is None or others:
        problem = f"has a part with the keys {', '.join(map(str, part))}; allowed: type and text"
        names = ", ".join(sorted(map(str, others - {"text"})))
        remedy = f"Remove the others, or set data.ignore: [{names}]"
        raise DataError(where, f"{what} {problem}", remedy)
    if kind == "tool_call":
        return kind, ""
    said = part[key]
    if isinstance(said, list):  # Mistral's thinking is a list of texts
        said = "".join(_read_part(each, what, where, ignore)[1] for each in said)
    return kind, check_text(said, where, what)
