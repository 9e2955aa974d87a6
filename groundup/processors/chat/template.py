"""Conversations to tokens, with an exact mask of what the assistant wrote.

What a message says can never become a special token: before rendering, every special token spelled
in a message is broken by a hidden character; after the rendered text is cut at the special tokens
of the template, the hidden characters are taken out and the pieces are encoded as plain text. A cut
is also made where the assistant begins and ends to write, so a conversation begins with exactly the
tokens of its prompt; and within words such as [/INST], which some templates have no special token
for, where a message spells them: it gets other tokens. Legend: T tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.contracts.processors import TextProcessor
from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import Message, TokenSequence
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.sandbox import CLOSE_NAME, OPEN_NAME, compile_template, render

__all__ = ["PLAIN_WORDS", "ROLES", "ChatTemplate", "find_template"]

ROLES = ("system", "user", "assistant", "tool")
PROBE = (Message("user", "Hi"), Message("assistant", "Hello"))
LOOKS_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<(?:start|end)_of_turn>")
_LLAMA2_WORDS = (
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
)  # no special tokens to Llama 2, whose turns they part
_TOOL_WORDS = (
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
PLAIN_WORDS = _LLAMA2_WORDS + _TOOL_WORDS
NONCHARACTERS = [
    chr(code) for code in range(0xFDD0, 0xFDF0)
]  # Unicode keeps these for a program's own use
Tools = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _Marks:
    """Characters that the conversation does not hold: hidden in special tokens, and around what is
    generated.

    At ``cut`` a message is cut, and its parts are encoded apart.
    """

    hide: str
    open: str
    close: str
    cut: str


@dataclass(frozen=True)
class _Piece:
    """A stretch of text, or one special token, all of which is trained on or none.

    ``continues`` is true of a text that follows another: the two are cut where the assistant begins
    or ends to write.
    """

    text: str
    special: int | None
    trained: bool
    continues: bool = False


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
        self.source, self._processor = source, processor
        self._template, self._tagged, self._reads_tools = compile_template(source)
        self._specials = processor.special_tokens
        names = sorted(self._specials, key=len, reverse=True)
        self._cut = (
            re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")
        )
        self._protection = _Protection(
            self._specials, [word for word in PLAIN_WORDS if word in source]
        )
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
        marks = _Marks("", "", "", "")
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
        each = tools if tools is not None else [None] * len(conversations)
        return self._encoded(
            [self._pieces(*given) for given in zip(conversations, each, strict=True)]
        )

    def prompt(
        self, messages: Sequence[Message], *, tools: Tools | None = None
    ) -> NDArray[np.int32]:
        """Return the tokens (T,) to continue for the assistant's next turn.

        Raises:
            DataError: If a role is unknown or the template fails.
        """
        marks = _free_marks(messages, self.source, tools)
        text, spans = _take_spans(self._render(messages, marks, tools, True), marks)
        return self._encoded([self._cut_up(text, spans, marks)])[0].tokens

    def _encoded(self, pieces: list[list[_Piece]]) -> list[TokenSequence]:
        texts = [piece for several in pieces for piece in several if piece.special is None]
        plain = iter(
            self._processor.encode_parts(
                [piece.text for piece in texts], [piece.continues for piece in texts]
            )
        )
        return [
            _join(ps, [next(plain) if p.special is None else None for p in ps]) for ps in pieces
        ]

    def _render(
        self, messages: Sequence[Message], marks: _Marks, tools: Tools | None, prompt: bool
    ) -> str:
        _check_roles(messages)
        self._refuse_unseen_tools(messages, tools)
        said: Any = [self._protection.value(_plain(message), marks) for message in messages]
        variables: dict[str, Any] = {"messages": said, "add_generation_prompt": prompt}
        variables["tools"] = self._protection.value(list(tools), marks) if tools else None
        variables |= {"bos_token": self._start, "eos_token": self._end, "documents": None}
        variables |= {OPEN_NAME: marks.open, CLOSE_NAME: marks.close}
        text = render(self._template, variables)
        if marks.hide:
            self._refuse_unknown_specials(text)
        return text

    def _refuse_unseen_tools(self, messages: Sequence[Message], tools: Tools | None) -> None:
        calls = any(message.tool_calls for message in messages)
        if (tools and not self._reads_tools) or (calls and "tool_calls" not in self.source):
            problem = (
                f"shows no {'calls of tools' if calls else 'tools'}, and the conversation has some"
            )
            raise DataError(
                "chat template", problem, "Use one that does, such as task.template=chatml or qwen"
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

    def _pieces(self, messages: Sequence[Message], tools: Tools | None) -> list[_Piece]:
        marks = _free_marks(messages, self.source, tools)
        text, spans = _take_spans(self._render(messages, marks, tools, False), marks)
        if not self._tagged:
            spans = self._spans_by_prefix(messages, text, marks, tools)
        answers = [message for message in messages if message.role == "assistant"]
        if not all(message.trained for message in answers):
            if len(spans) != len(answers):
                problem = (
                    f"marks {len(spans)} stretches for {len(answers)} answers, so those not to"
                    " learn are not known"
                )
                raise DataError(
                    "chat template", problem, "Put {% generation %} around each answer once"
                )
            spans = [span for span, message in zip(spans, answers, strict=True) if message.trained]
        return _exact_stops(self._cut_up(text, spans, marks))

    def _spans_by_prefix(
        self, messages: Sequence[Message], text: str, marks: _Marks, tools: Tools | None
    ) -> list[tuple[int, int]]:
        """Find what the assistant wrote between the prompt for a turn and the conversation up to
        its end."""
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(messages[:index], marks, tools, True)
            after = self._render(messages[: index + 1], marks, tools, False)
            if (
                not text.startswith(after)
                or not after.startswith(before)
                or len(before) == len(after)
            ):
                raise DataError(
                    "chat template",
                    f"a conversation does not begin with the prompt of its turn {index + 1}, so"
                    " what the assistant wrote cannot be told from the rest",
                    "Put {% generation %} and {% endgeneration %} around the assistant's words in"
                    " the template",
                )
            spans.append((len(before), len(after)))
        return spans

    def _cut_up(self, text: str, spans: list[tuple[int, int]], marks: _Marks) -> list[_Piece]:
        """Cut at the spans' ends and at the template's special tokens; take out the hidden
        characters."""
        pieces: list[_Piece] = []
        edges = [0, *(edge for span in spans for edge in span), len(text)]
        for number, (start, stop) in enumerate(pairwise(edges)):
            for part in self._cut.split(text[start:stop]):
                special = self._specials.get(part)
                whole = part if special is not None else part.replace(marks.hide, "")
                pieces += [
                    _Piece(text, special, number % 2 == 1)
                    for text in whole.split(marks.cut)
                    if text
                ]
        return _follow(_strip(pieces, self._processor.stripping_tokens))

    def _find_stops(self) -> tuple[int, ...]:
        """Return the special tokens that end the trained part of a question with its answer."""
        pieces = self._pieces(PROBE, None)
        ends = [
            p.special
            for p, after in zip(pieces, [*pieces[1:], None], strict=True)
            if _ends_turn(p, after)
        ]
        return tuple(dict.fromkeys([*(i for i in ends if i is not None), self._processor.end_id]))


class _Protection:
    """Breaks special tokens that are spelled in messages, whole or cut by a message's edge, by a
    hidden character."""

    def __init__(self, specials: Mapping[str, int], words: Sequence[str]) -> None:
        self._words = re.compile(
            "|".join(re.escape(word) for word in words if word not in specials) or "(?!)"
        )
        whole = "|".join(re.escape(name) for name in sorted(specials, key=len, reverse=True))
        looks = r"<(?=\|)|<(?=(?:start|end)_of_turn>)"
        self._spelled = re.compile(f"(?:{whole})|{looks}" if whole else looks)
        self._heads = tuple({name[:size] for name in specials for size in range(1, len(name))})
        self._tails = tuple({name[size:] for name in specials for size in range(1, len(name))})

    def text(self, text: str, marks: _Marks) -> str:
        hide, cut = marks.hide, marks.cut
        text = self._words.sub(
            lambda match: match[0][: len(match[0]) // 2] + cut + match[0][len(match[0]) // 2 :],
            text,
        )
        text = self._spelled.sub(lambda match: match[0][0] + hide + match[0][1:], text)
        start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
        if text[:stop].endswith(self._heads):
            text = text[:stop] + hide + text[stop:]
        return text[:start] + hide + text[start:] if text.startswith(self._tails, start) else text

    def value(self, value: Any, marks: _Marks) -> Any:
        if isinstance(value, str):
            return self.text(value, marks)
        if isinstance(value, dict):
            return {self.value(key, marks): self.value(item, marks) for key, item in value.items()}
        return (
            [self.value(item, marks) for item in value]
            if isinstance(value, list | tuple)
            else value
        )


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


def _free_marks(messages: Sequence[Message], source: str, tools: Tools | None) -> _Marks:
    said = source + json.dumps(
        [[_plain(message) for message in messages], tools], ensure_ascii=False
    )
    free = [mark for mark in NONCHARACTERS if mark not in said]
    if len(free) < 4:
        problem = (
            "holds nearly all of the noncharacters U+FDD0 to U+FDEF, which mark what the assistant"
            " wrote"
        )
        raise DataError("conversation", problem, "Remove them from the text")
    return _Marks(*free[:4])


def _plain(message: Message) -> dict[str, Any]:
    """Return a message as templates read it."""
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        said["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            | ({"id": call.identity} if call.identity else {})
            for call in message.tool_calls
        ]
    about = {"name": message.name, "tool_call_id": message.call}
    return said | {key: value for key, value in about.items() if value}


def _strip(pieces: list[_Piece], strips: Mapping[str, tuple[bool, bool]]) -> list[_Piece]:
    """Take away the blanks that a special token takes with it, as the tokenizers of Phi-3 have
    it."""
    if not strips:
        return pieces
    for step, side in ((1, 1), (-1, 0)):
        taking, kept = False, []
        for piece in pieces[::step]:
            if piece.special is not None:
                taking = strips.get(piece.text, (False, False))[side]
            elif taking:
                rest = piece.text.lstrip() if side else piece.text.rstrip()
                taking, piece = not rest, replace(piece, text=rest)
            if piece.text:
                kept.append(piece)
        pieces = kept[::step]
    return pieces


def _follow(pieces: list[_Piece]) -> list[_Piece]:
    """Note which texts go on where another one ended."""
    texts = [piece.special is None for piece in pieces]
    return [
        replace(piece, continues=True) if here and before else piece
        for piece, here, before in zip(pieces, texts, [False, *texts], strict=False)
    ]


def _take_spans(text: str, marks: _Marks) -> tuple[str, list[tuple[int, int]]]:
    """Return the text without the marks of ``{% generation %}``, and the (start, stop) between each
    pair of them."""
    spans: list[tuple[int, int]] = []
    kept, size = [], 0
    for number, part in enumerate(re.split(f"[{marks.open}{marks.close}]", text)):
        if number % 2 == 1:
            spans.append((size, size + len(part)))
        kept.append(part)
        size += len(part)
    return "".join(kept), spans


def _exact_stops(pieces: list[_Piece]) -> list[_Piece]:
    """End each trained run with its stop token: one that follows directly joins it, blanks behind
    one leave it."""
    fixed = list(pieces)
    for index in range(1, len(pieces)):
        before, here = fixed[index - 1], fixed[index]
        if (
            before.trained
            and before.special is None
            and not here.trained
            and here.special is not None
        ):
            fixed[index] = _Piece(here.text, here.special, True)
        last_of_run = index + 1 == len(pieces) or not pieces[index + 1].trained
        blank = here.special is None and not here.text.strip()
        if before.trained and before.special is not None and here.trained and last_of_run and blank:
            fixed[index] = _Piece(here.text, None, False)
    return fixed


def _ends_turn(piece: _Piece, after: _Piece | None) -> bool:
    return piece.trained and piece.special is not None and (after is None or not after.trained)


def _join(pieces: list[_Piece], encoded: list[NDArray[np.int32] | None]) -> TokenSequence:
    tokens, trained = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.bool_)]
    for piece, plain in zip(pieces, encoded, strict=True):
        tokens.append(np.array([piece.special], dtype=np.int32) if plain is None else plain)
        trained.append(np.full(len(tokens[-1]), piece.trained))
    return TokenSequence(np.concatenate(tokens), np.concatenate(trained))
