"""Conversations to tokens, with an exact mask of what the assistant wrote.

What a message says can never become a special token: before rendering, every special token spelled
in a message is broken by a hidden character; after the rendered text is cut at the special tokens
of the template, the hidden characters are taken out and the pieces are encoded as plain text. A cut
is also made where the assistant begins and ends to write, so a conversation begins with exactly the
tokens of its prompt; and within words such as [/INST], which some templates have no special token
for, where a message spells them: it gets other tokens. Legend: T tokens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message, TokenSequence
from groundup.processors.chat.answer_spans import Said, find_missing, find_spans, unread_keys
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.pieces import (
    Piece,
    ends_turn,
    join_tokens,
    mark_continuing,
    settle_stops,
    strip_blanks,
    take_spans,
)
from groundup.processors.chat.protection import (
    PLAIN_WORDS,
    Marks,
    Protection,
    Tools,
    any_of,
    free_marks,
    message_as_json,
)
from groundup.processors.chat.sandbox import CLOSE_NAME, OPEN_NAME, compile_template, render

_log = logging.getLogger("groundup")

__all__ = ["ROLES", "ChatTemplate", "find_template"]

ROLES = ("system", "user", "assistant", "tool")
# What every template can show.
PROBE = (Message("user", "Hi"), Message("assistant", "Hello"))
# Names between bars, as most families have them; those of Gemma's turns have none.
LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<(?:start|end)_of_turn>")


class ChatTemplate:
    """A chat template bound to a tokenizer.

    Args:
        source: Jinja source, as in Hugging Face's ``chat_template``. Where it has no
            ``{% generation %}`` tags, what the assistant wrote is found in what it renders.
        processor: The tokenizer.
        advises: Whether errors name the built-in templates that work, for which all are tried.

    Raises:
        DataError: If the source is not valid, does not render a question with its answer, or uses a
            special token that the tokenizer lacks.
    """

    def __init__(self, source: str, processor: TextProcessor, *, advises: bool = True) -> None:
        self.source = source
        self._advises = advises
        self._processor = processor
        self._template, self._tagged, self._reads = compile_template(source)
        self._specials = processor.special_tokens
        self._cut = re.compile(f"({any_of(self._specials).pattern})")
        self._protection = Protection(
            self._specials, [word for word in PLAIN_WORDS if word in source]
        )
        # Templates are given the end token by its name.
        self._end = next(
            (name for name, index in self._specials.items() if index == processor.end_id), ""
        )
        self._start = processor.start_token or ""
        self._told = False
        self._stop_ids = self._find_stops()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end the assistant's turn: the template's own, and the processor's."""
        return self._stop_ids

    def render(
        self, messages: Sequence[Message], *, tools: Tools | None = None, prompt: bool = False
    ) -> str:
        """Return the text of a conversation; with ``prompt``, up to where the assistant begins to
        write."""
        marks = Marks("", "", "", "")
        return self._render(messages, marks, tools, prompt)

    def encode(self, messages: Sequence[Message], *, tools: Tools | None = None) -> TokenSequence:
        """Return a conversation's tokens (T,); trained on are the assistant's words and stop
        tokens, in every turn.

        Raises:
            DataError: If a role is unknown, the template fails, or it does not show what the
                assistant wrote.
        """
        return self.encode_batch([messages], tools=[tools])[0]

    def encode_batch(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        tools: Sequence[Tools | None] | None = None,
    ) -> list[TokenSequence]:
        """Return ``encode`` of each conversation, tokenized together, which is faster.

        Args:
            conversations: The messages of each.
            tools: The tools of each.

        Raises:
            DataError: As ``encode``.
        """
        if tools is None:
            tools = [None] * len(conversations)
        return self._encode_pieces(
            [self._pieces(*given) for given in zip(conversations, tools, strict=True)]
        )

    def prompt(
        self, messages: Sequence[Message], *, tools: Tools | None = None
    ) -> NDArray[np.int32]:
        """Return the tokens (T,) to continue for the assistant's next turn.

        Raises:
            DataError: If a role is unknown or the template fails.
        """
        marks = free_marks(messages, self.source, tools)
        text, spans = take_spans(self._render(messages, marks, tools, True), marks)
        return self._encode_pieces([self._cut_up(text, spans, marks)])[0].tokens

    def around_user(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the tokens before and after what the user says in a prompt with nothing else.

        Raises:
            DataError: If the template does not show it once.
        """
        marks = free_marks((), self.source, None)
        said = marks.free[0]
        rendered = self._render([Message("user", said)], marks, None, True)
        text, _ = take_spans(rendered, marks)
        parts = text.split(said)
        if len(parts) != 2:
            problem = f"shows what the user says {len(parts) - 1} times; allowed: once"
            raise DataError("chat template", problem, "Use another template")
        before, after = ([*self._cut_up(part, [], marks)] for part in parts)
        # It goes on where the user's text ended.
        if after and after[0].special is None:
            after[0] = replace(after[0], continues=True)
        first, last = self._encode_pieces([before, after])
        return first.tokens, last.tokens

    def _encode_pieces(self, pieces: list[list[Piece]]) -> list[TokenSequence]:
        texts = [piece for some in pieces for piece in some if piece.special is None]
        plain = iter(
            self._processor.encode_parts(
                [piece.text for piece in texts], [piece.continues for piece in texts]
            )
        )
        # The tokens of all texts were made at once: each conversation takes its own in turn.
        return [join_tokens(some, plain) for some in pieces]

    def _render(
        self,
        messages: Sequence[Message],
        marks: Marks,
        tools: Tools | None,
        prompt: bool,
        change: Callable[[Said], Said] = lambda said: said,
    ) -> str:
        _check_roles(messages)
        self._refuse_unread(messages, tools)
        said = [message_as_json(message, self._reads) for message in messages]
        variables = {
            "messages": change(self._protection.value(said, marks)),
            # Templates test tools and documents, so they are there even when there are none.
            "tools": self._protection.value(list(tools), marks) if tools else None,
            "documents": None,
            "add_generation_prompt": prompt,
            "bos_token": self._start,
            "eos_token": self._end,
            OPEN_NAME: marks.open,
            CLOSE_NAME: marks.close,
        }
        text = render(self._template, variables)
        # Without marks nothing was broken, so a message may spell what it likes.
        if marks.hide:
            self._refuse_unknown_specials(text)
        return text

    def _refuse_unread(self, messages: Sequence[Message], tools: Tools | None) -> None:
        calls = any(message.tool_calls for message in messages)
        if (tools and "tools" not in self._reads) or (calls and "tool_calls" not in self._reads):
            what = "calls of tools" if calls else "tools"
            raise self._error(
                f"shows no {what}, but the conversation has some", "Remove them", messages, tools
            )
        for number, key in unread_keys(messages, self._reads):
            raise DataError(
                "chat template",
                f"does not read the key {key!r}, which turn {number} has",
                f"Remove the key, or leave it out with data.ignore=[{key}]",
            )

    def _refuse_unknown_specials(self, text: str) -> None:
        unknown = [found for found in LOOKS_SPECIAL.findall(text) if found not in self._specials]
        if unknown:
            near = did_you_mean(unknown[0], self._specials)
            known = ", ".join(list(self._specials)[:12]) or "none"
            raise DataError(
                "chat template",
                f"uses the special token {unknown[0]}, which the tokenizer lacks; {near}it has:"
                f" {known}",
                "Use a template made for this tokenizer, such as 'groundup'",
            )

    def _pieces(self, messages: Sequence[Message], tools: Tools | None) -> list[Piece]:
        marks = free_marks(messages, self.source, tools)
        text, spans = take_spans(self._render(messages, marks, tools, False), marks)
        shown = text.replace(marks.hide, "").replace(marks.cut, "")
        self._check_shown(messages, tools, shown)
        answers = [message for message in messages if message.role == "assistant"]
        if not self._tagged:

            def render(count: int, prompt: bool, change: Callable[[Said], Said]) -> str:
                return self._render(messages[:count], marks, tools, prompt, change)

            spans = find_spans(messages, text, render, marks.free, self._cut)
        # Whose answer a span is, is known only where there is one for each.
        told_apart = self._tagged and all(message.trained for message in answers)
        if len(spans) != len(answers) and not told_apart:
            turns = [n for n, message in enumerate(messages, 1) if message.role == "assistant"]
            turn = turns[min(len(spans), len(turns) - 1)]
            raise self._error(
                f"what the assistant wrote in turn {turn} cannot be told from the rest",
                "Put {% generation %} and {% endgeneration %} around the assistant's words in it",
                messages,
                tools,
            )
        if len(spans) == len(answers):
            spans = [span for span, message in zip(spans, answers, strict=True) if message.trained]
        return settle_stops(self._cut_up(text, spans, marks))

    def _check_shown(self, messages: Sequence[Message], tools: Tools | None, text: str) -> None:
        """Refuse a template that leaves out what a message says, or what is thought in the last
        one; of earlier thoughts it is said once, as many templates drop them by design."""
        for number, message in enumerate(messages, 1):
            said, thought = find_missing(message, text)
            if said or (thought and number == len(messages)):
                what = "what" if said else "the reasoning that"
                raise self._error(
                    f"leaves out {what} turn {number} ({message.role}) has",
                    "Remove the row",
                    messages,
                    tools,
                )
            if thought and not self._told:
                self._told = True
                _log.warning("the chat template leaves out what was thought in earlier turns")

    def _error(
        self, problem: str, remedy: str, messages: Sequence[Message], tools: Tools | None
    ) -> DataError:
        """Return an error that names the templates which were tried and work."""
        fitting = []
        if self._advises:
            fitting = [name for name in TEMPLATES if self._fits(name, messages, tools)]
        if fitting:
            remedy += f"; or set task.template to one that works here: {', '.join(fitting)}"
        return DataError("chat template", problem, remedy)

    def _fits(self, name: str, messages: Sequence[Message], tools: Tools | None) -> bool:
        try:
            other = ChatTemplate(TEMPLATES[name], self._processor, advises=False)
            other.encode(messages, tools=tools)
        except DataError:
            return False
        return True

    def _cut_up(self, text: str, spans: list[tuple[int, int]], marks: Marks) -> list[Piece]:
        """Cut at the spans' ends and at the template's special tokens; take out the hidden
        characters."""
        pieces: list[Piece] = []
        # What the assistant wrote is every other stretch between the edges.
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        for number, (start, stop) in enumerate(pairwise(edges)):
            for part in self._cut.split(text[start:stop]):
                special = self._specials.get(part)
                whole = part.replace(marks.hide, "") if special is None else part
                pieces += [
                    Piece(text, special, number % 2 == 1) for text in whole.split(marks.cut) if text
                ]
        return mark_continuing(strip_blanks(pieces, self._processor.stripping_tokens))

    def _find_stops(self) -> tuple[int, ...]:
        """Return the special tokens that end the trained part of a question with its answer."""
        # What ends a turn differs from template to template, so it is tried.
        pieces = self._pieces(PROBE, None)
        ends = [
            p.special
            for p, after in zip(pieces, [*pieces[1:], None], strict=True)
            if ends_turn(p, after)
        ]
        turns = [end for end in ends if end is not None]
        return tuple(dict.fromkeys([*turns, *self._processor.end_ids]))


def find_template(name: str | None, processor: TextProcessor) -> str:
    """Return the source of a built-in template by name; without a name, the processor's own, else
    ``groundup``.

    Raises:
        DataError: If no built-in template has that name, or it is ``tokenizer`` and the processor
            has none.
    """
    if name is None:
        return processor.chat_template or TEMPLATES["groundup"]
    if name == "tokenizer":
        if processor.chat_template is None:
            known = ", ".join(TEMPLATES)
            raise DataError(
                "chat template",
                f"the tokenizer brings none; known by name: {known}",
                "Choose one of these",
            )
        return processor.chat_template
    if name not in TEMPLATES:
        near = did_you_mean(name, [*TEMPLATES, "tokenizer"])
        raise DataError(
            "chat template",
            f"there is no template {name!r}; {near}known: tokenizer, {', '.join(TEMPLATES)}",
            "Choose one of these, or give the Jinja source in a file",
        )
    return TEMPLATES[name]


def _check_roles(messages: Sequence[Message]) -> None:
    for number, message in enumerate(messages, 1):
        if message.role not in ROLES:
            raise DataError(
                f"message {number}",
                f"unknown role {message.role!r}; {did_you_mean(message.role, ROLES)}allowed:"
                f" {', '.join(ROLES)}",
                "Rename the role in the data",
            )
