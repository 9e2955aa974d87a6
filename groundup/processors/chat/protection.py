"""What a message says can never become a special token: hidden characters break it where it is
spelled."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.core.errors import DataError
from groundup.core.values import Message

__all__ = [
    "NONCHARACTERS",
    "PLAIN_WORDS",
    "Marks",
    "Protection",
    "Tools",
    "any_of",
    "free_marks",
    "message_as_json",
]

# No special tokens to Llama 2, whose turns they part.
_LLAMA2_WORDS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_TOOL_WORDS = (
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
PLAIN_WORDS = _LLAMA2_WORDS + _TOOL_WORDS
# The keys under which templates read what the assistant thought.
REASONING = ("reasoning_content", "reasoning", "thinking")
# Unicode keeps these for a program's own use: no text that is exchanged has them.
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
Tools = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Marks:
    """Characters that the conversation does not hold: hidden in special tokens, and around what is
    generated.

    At ``cut`` a message is cut, and its parts are encoded apart. ``free`` has three more, for tags.
    """

    hide: str
    open: str
    close: str
    cut: str
    free: str = ""


def free_marks(messages: Sequence[Message], source: str, tools: Tools | None) -> Marks:
    said = source + json.dumps(
        [[message_as_json(message) for message in messages], tools], ensure_ascii=False
    )
    free = [mark for mark in NONCHARACTERS if mark not in said]
    # One for each of the four marks, and three for tags.
    if len(free) < 7:
        raise DataError(
            "conversation",
            "holds nearly all of the noncharacters U+FDD0 to U+FDEF, which mark what the assistant"
            " wrote",
            "Remove them from the text",
        )
    hide, opening, closing, cut = free[:4]
    return Marks(hide, opening, closing, cut, "".join(free[4:7]))


def message_as_json(
    message: Message, reads: frozenset[str] = frozenset(REASONING)
) -> dict[str, Any]:
    """Return a message as templates read it.

    Args:
        message: The message.
        reads: The names that the template reads. Where it reads no reasoning, that is put before
            the content, as Qwen and DeepSeek write it.
    """
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        thought = {name: message.reasoning for name in REASONING if name in reads}
        if not thought:
            said["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.content}"
        said |= thought
    if message.tool_calls:
        said["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({"id": call.identity} if call.identity else {})
            for call in message.tool_calls
        ]
    # Templates test whether a key is there, so none is given without a value.
    about = {"name": message.name, "tool_call_id": message.call}
    return message.extra | said | {key: value for key, value in about.items() if value}


class Protection:
    """Breaks special tokens that are spelled in messages, whole or cut by a message's edge, by a
    hidden character."""

    def __init__(self, specials: Mapping[str, int], words: Sequence[str]) -> None:
        self._words = any_of([word for word in words if word not in specials])
        # What only looks special is broken too: the template would be said to lack its token.
        looks = r"<(?=\|)|<(?=(?:start|end)_of_turn>)"
        self._spelled = re.compile(f"{any_of(specials).pattern}|{looks}")
        # A message may begin or end inside a special token whose rest the template writes.
        self._heads = tuple({name[:size] for name in specials for size in range(1, len(name))})
        self._tails = tuple({name[size:] for name in specials for size in range(1, len(name))})

    def text(self, text: str, marks: Marks) -> str:
        """Return a text in which nothing is a special token any more."""
        text = self._words.sub(lambda match: _insert(marks.cut, match[0], len(match[0]) // 2), text)
        text = self._spelled.sub(lambda match: _insert(marks.hide, match[0], 1), text)
        # Templates may strip a message, so its edges are those without blanks.
        stop = len(text.rstrip())
        if text[:stop].endswith(self._heads):
            text = _insert(marks.hide, text, stop)
        start = len(text) - len(text.lstrip())
        if text.startswith(self._tails, start):
            text = _insert(marks.hide, text, start)
        return text

    def value(self, value: Any, marks: Marks) -> Any:
        """Return a value as JSON has it, with ``text`` of all texts in it."""
        if isinstance(value, str):
            return self.text(value, marks)
        if isinstance(value, dict):
            # The names of a call's arguments are shown as well.
            return {self.value(key, marks): self.value(item, marks) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, marks) for item in value]
        return value


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that is any of these texts, the longest first; without texts, none."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _insert(mark: str, text: str, place: int) -> str:
    return text[:place] + mark + text[place:]
