"""Where the assistant writes in a rendered conversation, for templates that do not mark it.

Many templates are such that a conversation begins with the text of its earlier turns: then the
prompt for a turn and the conversation up to its end say where the answer is. Others write a turn in
another way once more turns follow, as Qwen3's does with what was thought. There the messages are
rendered once more with tags around their words, which are found again in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from groundup.core.values import Message

__all__ = ["Said", "find_missing", "find_spans", "unread_keys"]

Said = list[dict[str, Any]]
"""Messages as templates read them."""

Span = tuple[int, int]
Render = Callable[[int, bool, Callable[[Said], Said]], str]
"""Renders the first N messages, with the prompt for an answer or without, changed by a function."""


def find_spans(
    messages: Sequence[Message], text: str, render: Render, free: str, special: re.Pattern[str]
) -> list[Span]:
    """Return the (start, stop) of each answer in a rendered conversation, its stop token included.

    Args:
        messages: The conversation.
        text: What the template makes of it.
        render: Renders the beginnings of the conversation.
        free: Three characters or more that are nowhere in the conversation.
        special: Any special token.

    Returns:
        The spans in order; fewer than there are answers where one cannot be told from the rest.
    """
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    spans: list[Span] = []
    for number in answers:
        before = render(number, True, lambda said: said)
        after = render(number + 1, False, lambda said: said)
        grows = text.startswith(after) and after.startswith(before)
        # Of equal length: the template leaves the answer out.
        if not grows or len(before) == len(after):
            break
        spans.append((len(before), len(after)))
    if len(spans) == len(answers):
        return spans
    return _Whole(text, render, free, special).spans(len(messages), answers)


class _Whole:
    """Finds answers by tags around the words of all messages."""

    def __init__(self, text: str, render: Render, free: str, special: re.Pattern[str]) -> None:
        self._text = text
        self._special = special
        self._render = render
        self._edge = free[0]
        self._digits = free[1:3]
        self._tag = re.compile(f"{self._edge}([{self._digits}]+){self._edge}")

    def spans(self, count: int, answers: Sequence[int]) -> list[Span]:
        """Return the spans as far as they can be found."""
        found: list[Span] = []
        whole, places = self._tagged(count, False)
        if whole != self._text:  # a template that looks at the edges of what is said
            return found
        for number in answers:
            span = self._span(number, places)
            if span is None or (found and span[0] < found[-1][1]):
                break
            found.append(span)
        return found

    def _span(self, number: int, places: list[tuple[int, int]]) -> Span | None:
        own = [place for place, which in places if which == number]
        before, asked = self._tagged(number, True)
        after, said = self._tagged(number + 1, False)
        if not own or not said or said[-1][1] != number:
            return None
        # From the last words before the answer on, the whole goes as the prompt does.
        place, which = asked[-1] if asked else (0, -1)
        known = [there for there, each in places if each == which] or [0]
        prompt = before[place:]
        begins = known[-1]
        start = begins + _count_common(prompt, self._text[begins : begins + len(prompt)])
        # A prompt may end with what begins an answer, and not every answer: its words do then.
        if start < begins + len(prompt) and self._text[start : own[0]].strip():
            return None
        rest = after[said[-1][0] :]
        stop = own[-1] + len(rest)
        if self._text[own[-1] : stop] != rest:
            # The last answer may end with another token than those before, which joins the span.
            stop = own[-1]
            if not self._special.match(self._text, stop):
                return None
        return (start, stop) if start <= own[0] else None

    def _tagged(self, count: int, prompt: bool) -> tuple[str, list[tuple[int, int]]]:
        """Return the text without the tags, and for each the place and the number of its
        message."""
        parts = self._tag.split(self._render(count, prompt, self._put_tags))
        places = []
        size = 0
        for part, tag in zip(parts[::2], [*parts[1::2], None], strict=True):
            size += len(part)
            if tag is not None:
                number = "".join(str(self._digits.index(digit)) for digit in tag)
                places.append((size, int(number, 2)))
        return "".join(parts[::2]), places

    def _put_tags(self, said: Said) -> Said:
        return [self._put_tag(number, message) for number, message in enumerate(said)]

    def _put_tag(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        tag = "".join(self._digits[int(bit)] for bit in f"{number:b}")
        tag = f"{self._edge}{tag}{self._edge}"
        content = message["content"]
        words = content.strip()
        if words:  # templates trim: blanks stay outside
            before, after = content.split(words, 1)
            message = {**message, "content": f"{before}{tag}{words}{tag}{after}"}
        if "tool_calls" in message:
            calls = [
                {**call, "function": {**call["function"], "name": call["function"]["name"] + tag}}
                for call in message["tool_calls"]
            ]
            message = {**message, "tool_calls": calls}
        return message


def _count_common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def find_missing(message: Message, text: str) -> tuple[bool, bool]:
    """Return whether what a message says is missing in a rendered conversation, and whether what
    was thought before is."""
    inside, end, answer = message.content.rpartition("</think>")
    said = answer if end and message.role == "assistant" else message.content
    thought = message.reasoning or (inside.partition("<think>")[2] if end else "")
    return _is_missing(said, text), _is_missing(thought, text)


def _is_missing(said: str, text: str) -> bool:
    said = said.strip()
    if not said or said in text:
        return False
    # As JSON, which templates make of what a tool returned; or with other blanks between its lines.
    escaped = said.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    longest = max(said.split("\n"), key=len).strip()
    return escaped not in text and longest not in text


def unread_keys(messages: Sequence[Message], reads: frozenset[str]) -> list[tuple[int, str]]:
    """Return the keys of messages that a template does not read, each with the number of its
    message, from 1."""
    found = []
    for number, message in enumerate(messages, 1):
        keys = list(message.extra)
        # Which tool a result is of, its place says as well.
        if message.name and message.role != "tool":
            keys.append("name")
        found += [(number, key) for key in keys if key not in reads]
    return found
