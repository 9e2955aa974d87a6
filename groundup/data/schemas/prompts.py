"""What is asked in a row of conversations, whether or not it is answered there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Conversation, Message
from groundup.data.reading.files import check_text
from groundup.data.schemas.chat_formats import FORMATS, to_messages
from groundup.data.schemas.column_names import rename_question
from groundup.data.schemas.tool_calls import tools_of

__all__ = ["to_prompt"]

# stands for the answer that is to be predicted
_ANSWER = "?"
_TURNS = {"messages": ("role", "content", "assistant"), "conversations": ("from", "value", "gpt")}
_QUESTIONS = {"prompt": "completion", "question": "answer", "instruction": "output"}


def to_prompt(row: Mapping[str, Any]) -> Conversation:
    """Return the turns of a row before its last answer.

    Args:
        row: Of any format of conversations, with its last answer or without; or with a text alone.

    Raises:
        DataError: If nothing is asked in it.
    """
    row = rename_question(row)
    there = {name: value for name, value in row.items() if value not in (None, "", [])}
    asked: dict[str, Any] = {
        name: there[name] for name in ("system", "tools", "history", "input") if name in there
    }
    for column, (role, content, assistant) in _TURNS.items():
        if isinstance(there.get(column), list):
            turns = list(there[column])
            while turns and isinstance(turns[-1], Mapping) and turns[-1].get(role) == assistant:
                turns.pop()
            asked[column] = [*turns, {role: assistant, content: _ANSWER}]
            break
    else:
        question = next((name for name in _QUESTIONS if name in there), None)
        if question is None:
            return Conversation("", (Message("user", _text_of(there)),))
        answer: Any = _ANSWER
        if isinstance(there[question], list):
            answer = [{"role": "assistant", "content": _ANSWER}]
        asked |= {question: there[question], _QUESTIONS[question]: answer}
    *turns, _ = to_messages(asked, "auto", "")
    return Conversation("", tuple(turns), tools=tools_of(asked, ""))


def _text_of(row: Mapping[str, Any]) -> str:
    if "text" not in row:
        known = "; ".join(FORMATS.values())
        raise DataError(
            "",
            f"nothing is asked in the columns {', '.join(row) or '(none)'}; known: {known}",
            "Rename the columns",
        )
    return check_text(row["text"], "", "column 'text'")
