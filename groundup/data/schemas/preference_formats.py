"""The shapes in which people keep preferences, recognised by the columns. Pure functions of one
row.

A row is a pair, an answer that was chosen over another; or one answer with a label: whether it is
good.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message
from groundup.data.reading.files import check_text
from groundup.data.schemas.chat_formats import recognise as recognise_chat
from groundup.data.schemas.chat_formats import to_messages, unused_columns
from groundup.data.schemas.messages import refuse_media
from groundup.data.schemas.tool_calls import parse_json, tools_of

__all__ = [
    "PREFERENCE_FORMATS",
    "Judgement",
    "recognise_preference",
    "to_judgement",
    "unused_preference_columns",
]

PREFERENCE_FORMATS = {
    "pairs": "prompt (or question), chosen, rejected",
    "sharegpt_pairs": "conversations (or messages), chosen, rejected",
    "alpaca_pairs": "instruction, input, chosen, rejected",
    "dialogue_pairs": "chosen, rejected, each with its prompt",
    "labels": "a conversation in any known shape, and label (or kto_tag): true or false",
}
_TURNS = ("conversations", "messages")
_PROMPTS = ("prompt", "question")
_LABELS = ("label", "kto_tag")
_JSON_TURNS = re.compile(r"\s*\[?\s*\{\s*[\"'](role|from|content|value)[\"']\s*:")
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Judgement(NamedTuple):
    """A prompt with a pair of answers, or with one answer that is good or not."""

    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]
    good: bool | None
    tools: tuple[dict[str, Any], ...] = ()


def recognise_preference(columns: Iterable[str]) -> str | None:
    """Return the name of the format of rows with these columns, or None."""
    present = set(columns)
    if not present.isdisjoint(_LABELS) and present.isdisjoint({"chosen", "rejected"}):
        return "labels" if recognise_chat(tuple(present)) else None
    if not {"chosen", "rejected"} <= present:
        return None
    if not present.isdisjoint(_TURNS):
        return "sharegpt_pairs"
    if "instruction" in present:
        return "alpaca_pairs"
    return "pairs" if not present.isdisjoint(_PROMPTS) else "dialogue_pairs"


def to_judgement(row: Mapping[str, Any], where: str, ignore: Collection[str] = ()) -> Judgement:
    """Return what one row says, checked.

    Args:
        row: The columns and their values; those without a value left out.
        where: File and row, for messages.
        ignore: Keys of messages that are left out.

    Raises:
        DataError: If the row has no known shape, its answers are empty, equal or follow different
            prompts, the turns are in an impossible order, or the label is neither true nor false.
    """
    form = recognise_preference(row)
    if form is None:
        shape = '{"prompt": ..., "chosen": ..., "rejected": ...}'
        remedy = f"Rename or fill in the columns; or write each row as {shape}"
        raise DataError(where, _describe_unknown(row), remedy)
    refuse_media(row, (), where)
    tools = tools_of(row, where)
    # as KTO has it: one answer, and whether it is good
    if form == "labels":
        answered = {k: v for k, v in row.items() if k not in _LABELS}
        messages = to_messages(answered, "auto", where, ignore)
        return Judgement(messages[:-1], (messages[-1:],), _read_label(row, where), tools)
    both = [
        _read_answer(row, column, f"{where}, {column}", ignore) for column in ("chosen", "rejected")
    ]
    return _cut_pair(both[0], both[1], where)._replace(tools=tools)


def unused_preference_columns(row: Mapping[str, Any]) -> list[str]:
    """Return the columns of a row in which there is something, and which its format does not
    read."""
    form = recognise_preference(row)
    if form == "labels":
        chat = recognise_chat(tuple(name for name in row if name not in _LABELS))
        known = unused_columns(row, chat or "messages")
        return [name for name in known if name != _label_column(row)]
    used = {"chosen", "rejected", "system", "tools", "functions"}
    if form == "alpaca_pairs":
        used |= {"instruction", "input", "history"}
    else:
        used |= {next((name for name in (*_TURNS, *_PROMPTS) if name in row), "")}
    return [name for name, value in row.items() if name not in used and value not in ("", [], {})]


def _cut_pair(chosen: tuple[Message, ...], rejected: tuple[Message, ...], where: str) -> Judgement:
    """Cut two conversations where they part."""
    # the gradient of such a pair is 0, and it would count as a step
    if chosen == rejected:
        raise DataError(
            where,
            "the chosen answer and the rejected one are equal; a pair must differ",
            "Remove the row, or set invalid_rows: skip",
        )
    # Full conversations are kept twice (HH-RLHF): what they share is the prompt.
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    for turns in (chosen, rejected):
        if same == len(turns) or turns[same].role != "assistant":
            raise DataError(
                where,
                f"the prompts of chosen and rejected differ: they part at turn {same + 1}, which is"
                " no answer",
                "Give both answers to one prompt, or remove the row",
            )
    return Judgement(chosen[:same], (chosen[same:], rejected[same:]), None)


def _read_answer(
    row: Mapping[str, Any], column: str, where: str, ignore: Collection[str]
) -> tuple[Message, ...]:
    """Return the prompt and one of the answers as turns."""
    answer = row[column]
    turns = answer
    if isinstance(answer, Mapping):  # a single message, as LLaMA-Factory has it
        turns = [answer]
    if isinstance(turns, str) and _JSON_TURNS.match(turns):  # as .csv has it
        turns = parse_json(turns, "the answer", where)
    if isinstance(turns, Mapping):
        turns = [turns]
    if isinstance(turns, str):
        if recognise_preference(row) == "dialogue_pairs":
            return to_messages({"messages": _read_transcript(turns, where)}, "messages", where)
        turns = [{"role": "assistant", "content": turns}]
    if not isinstance(turns, list):
        check_text(answer, where, "the answer")
    if any(isinstance(turn, str) for turn in turns):
        raise DataError(
            where,
            f"there are {len(turns)} texts in a list; allowed: one answer, as text or as a list of"
            " messages",
            "Write a row for each answer",
        )
    first = _role_of(turns[0]) if turns and isinstance(turns[0], Mapping) else None
    whole = first in ("system", "user", "human")
    prompt = _read_prompt(row, where)
    if whole and row.get("system") and first != "system":
        turns = [prompt[0], *turns]
    if not whole:
        turns = [*prompt, *turns]
    messages = to_messages({"messages": turns}, "messages", where, ignore)
    if whole and prompt:
        _check_prompt(prompt[-1], messages, where)
    return messages


def _check_prompt(last: Any, messages: tuple[Message, ...], where: str) -> None:
    """Refuse a prompt in a column of its own that is none of the conversation's turns."""
    said = last.get("content", last.get("value")) if isinstance(last, Mapping) else last
    if isinstance(said, str) and not any(said.strip() == m.content.strip() for m in messages):
        raise DataError(
            where,
            f"the column with the prompt says {said[:60]!r}, but the conversation does not",
            "Remove the column, or correct one of the two",
        )


def _read_prompt(row: Mapping[str, Any], where: str) -> list[Any]:
    """Return the turns before the answer."""
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    if "instruction" in row and not any(column in row for column in _TURNS):
        kept = {k: row[k] for k in ("system", "history", "instruction", "input") if k in row}
        # the format needs an answer: one is put in and taken out again
        asked = to_messages({**kept, "output": "-"}, "alpaca", where)[:-1]
        return [{"role": turn.role, "content": turn.content} for turn in asked]
    for column in (*_TURNS, *_PROMPTS):
        if column in row:
            prompt = row[column]
            if isinstance(prompt, str) and _JSON_TURNS.match(prompt):
                prompt = parse_json(prompt, f"column {column!r}", where)
            if not isinstance(prompt, list):
                prompt = [{"role": "user", "content": prompt}]
            return [*system, *prompt]
    return system


def _role_of(turn: Mapping[str, Any]) -> Any:
    return turn.get("role", turn.get("from"))


def _read_transcript(text: str, where: str) -> list[dict[str, str]]:
    """Return the turns of ``\\n\\nHuman: ... \\n\\nAssistant: ...``."""
    # as in Anthropic's HH-RLHF: text before the first speaker means that this is something else
    before, *parts = _SPEAKER.split(text)
    if before.strip() or len(parts) < 4:
        problem = (
            "there is no column for the prompt, and no dialogue that begins with 'Human:' and goes"
            " on with"
        )
        raise DataError(where, f"{problem} 'Assistant:'", "Add a column prompt")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[name], "content": said.strip()} for name, said in pairs]


def _label_column(row: Mapping[str, Any]) -> str:
    return next(name for name in _LABELS if name in row)


def _read_label(row: Mapping[str, Any], where: str) -> bool:
    # 1 and 0 are refused: they may be scores
    column = _label_column(row)
    value = row[column]
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):  # as .csv has it
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise DataError(
            where, f"column {column!r} is {value!r}; allowed: true or false", "Correct the label"
        )
    return value


def _describe_unknown(row: Mapping[str, Any]) -> str:
    missing = {"chosen", "rejected"} - set(row)
    if len(missing) == 1:
        (name,) = missing
        return (
            f"column {name!r} is missing or empty; {did_you_mean(name, row)}columns:"
            f" {', '.join(row)}"
        )
    known = "; ".join(f"{name} ({shape})" for name, shape in PREFERENCE_FORMATS.items())
    return (
        f"no known kind of preference has the columns {', '.join(row) or '(none)'}; known: {known}"
    )
