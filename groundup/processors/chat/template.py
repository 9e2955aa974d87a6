"""Conversations to tokens, with an exact mask of what the assistant wrote.

What a message says can never become a special token: before rendering, every special token spelled
in a message is broken by a hidden character; after the rendered text is cut at the special tokens
of the template, the hidden characters are taken out and the pieces are encoded as plain text. A cut
is also made where the assistant begins and ends to write, so a conversation begins with exactly the
tokens of its prompt; and within words such as [/INST], which some templates have no special token
for, where a message spells them: it gets other tokens. Legend: T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.processors import TextProcessor
from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message, TokenSequence
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
            ``{% generation %}`` tags, what the assistant wrote is found by rendering the
            conversation up to each of its turns.
        processor: The tokenizer.

    Raises:
        DataError: If the source is not valid, does not render a question with its answer, or uses a
            special token that the tokenizer lacks.
    """

    def __init__(self, source: str, processor: TextProcessor) -> None:
        self.source = source
        self._processor = processor
        self._template, self._tagged, self._reads_tools = compile_template(source)
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
        self._stop_ids = self._find_stops()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end the assistant's turn: the template's own, and the processor's end
        token."""
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
        self, messages: Sequence[Message], marks: Marks, tools: Tools | None, prompt: bool
    ) -> str:
        _check_roles(messages)
        self._refuse_unseen_tools(messages, tools)
        said = [message_as_json(message) for message in messages]
        variables = {
            "messages": self._protection.value(said, marks),
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

    def _refuse_unseen_tools(self, messages: Sequence[Message], tools: Tools | None) -> None:
        calls = any(message.tool_calls for message in messages)
        if (tools and not self._reads_tools) or (calls and "tool_calls" not in self.source):
            what = "calls of tools" if calls else "tools"
            raise DataError(
                "chat template",
                f"shows no {what}, but the conversation has some",
                "Use one that does, such as task.template=chatml or qwen",
            )

    def _refuse_unknown_specials(self, text: str) -> None:
        unknown = [found for found in LOOKS_SPECIAL.findall(text) if found not in self._specials]
        if unknown:
            near = did_you_mean(unknown[0], self._specials)
            known = ", ".join(list(self._specials)[:12]) or "none"
            problem = (
                f"uses the special token {unknown[0]}, which the tokenizer lacks; {near}it has:"
                f" {known}"
            )
            raise DataError(
                "chat template",
                problem,
                "Use a template made for this tokenizer, such as 'groundup'",
            )

    def _pieces(self, messages: Sequence[Message], tools: Tools | None) -> list[Piece]:
        marks = free_marks(messages, self.source, tools)
        text, spans = take_spans(self._render(messages, marks, tools, False), marks)
        if not self._tagged:
            spans = self._spans_by_prefix(messages, text, marks, tools)
        answers = [message for message in messages if message.role == "assistant"]
        if not all(message.trained for message in answers):
            # Which span is whose answer is known only where there is one for each.
            if len(spans) != len(answers):
                problem = (
                    f"marks {len(spans)} stretches for {len(answers)} answers, so those not to"
                    " learn are not known"
                )
                raise DataError(
                    "chat template", problem, "Put {% generation %} around each answer once"
                )
            spans = [span for span, message in zip(spans, answers, strict=True) if message.trained]
        return settle_stops(self._cut_up(text, spans, marks))

    def _spans_by_prefix(
        self, messages: Sequence[Message], text: str, marks: Marks, tools: Tools | None
    ) -> list[tuple[int, int]]:
        """Find what the assistant wrote between the prompt for a turn and the conversation up to
        its end."""
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(messages[:index], marks, tools, True)
            after = self._render(messages[: index + 1], marks, tools, False)
            grows = text.startswith(after) and after.startswith(before)
            # Of equal length: the template leaves the answer out.
            if not grows or len(before) == len(after):
                raise DataError(
                    "chat template",
                    f"a conversation does not begin with the prompt of its turn {index + 1}, so"
                    " what the assistant wrote cannot be told from the rest",
                    "Put {% generation %} and {% endgeneration %} around the assistant's words in"
                    " the template",
                )
            spans.append((len(before), len(after)))
        return spans

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
        return tuple(dict.fromkeys([*(i for i in ends if i is not None), self._processor.end_id]))


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
        problem = f"there is no template {name!r}; {near}known: tokenizer, {', '.join(TEMPLATES)}"
        raise DataError(
            "chat template", problem, "Choose one of these, or give the Jinja source in a file"
        )
    return TEMPLATES[name]


def _check_roles(messages: Sequence[Message]) -> None:
    for number, message in enumerate(messages, 1):
        if message.role not in ROLES:
            problem = (
                f"unknown role {message.role!r}; {did_you_mean(message.role, ROLES)}allowed:"
                f" {', '.join(ROLES)}"
            )
            raise DataError(f"message {number}", problem, "Rename the role in the data")
