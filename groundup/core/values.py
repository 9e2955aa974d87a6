"""What the parts hand to each other: examples, losses, reports, tables. Plain values."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IGNORED",
    "Batch",
    "Conversation",
    "CutInputs",
    "Document",
    "Evaluation",
    "Example",
    "Figure",
    "HasName",
    "HasOrigin",
    "Loss",
    "Message",
    "Preference",
    "Report",
    "Split",
    "StoredFile",
    "Table",
    "Term",
    "TokenSequence",
    "ToolCall",
]


Batch = dict[str, Tensor]
"""What a model is given at once: tensors by name, one row an example."""

IGNORED = -100
"""The target where nothing is to be predicted, as torch's losses have it."""

Split = Literal["train", "validation", "test"]


class CutInputs:
    """How many of the inputs that were encoded are longer than what is read of them, by what they
    are and what cuts them; and which of their values mean nothing to the model."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, str], _Cut] = {}
        self._filled: dict[str, tuple[int, str]] = {}

    def add(self, what: str, unit: str, limit: str, lengths: Sequence[float], read: float) -> None:
        """Count inputs.

        Args:
            what: What they are, such as ``texts``.
            unit: Of their lengths, such as ``tokens``.
            limit: What cuts them, such as ``max_tokens 256``.
            lengths: Of each, before it is cut.
            read: The most that is read.
        """
        known = self._seen.setdefault((what, unit, limit), _Cut())
        # Nearly always nothing is cut, and each text of a large corpus passes here.
        if max(lengths, default=read) > read:
            places = enumerate(lengths, known.inputs + 1)
            known.cut += [(place, length, read) for place, length in places if length > read]
        known.inputs += len(lengths)

    def count(self, what: str, total: int, example: str) -> None:
        """Count values that are not read as they are, of so many: ``what`` is said of them."""
        if total:
            before = self._filled.get(what, (0, example))
            self._filled[what] = (before[0] + total, before[1])

    def filled(self) -> list[str]:
        """Return a line for each kind of value that ``count`` was told of."""
        return [f"{total:,} {what} ({example})" for what, (total, example) in self._filled.items()]

    def clear(self) -> None:
        """Forget what was counted."""
        self._seen.clear()
        self._filled.clear()

    def notes(self, named: int = 0, *, counts: bool = True) -> list[str]:
        """Return a line for each kind of input of which some are cut.

        Args:
            named: The lengths of so many of them are said too.
            counts: Say how many; else their share, where each may be encoded more than once.
        """
        found = []
        for (what, unit, limit), seen in self._seen.items():
            if not seen.cut:
                continue
            lost = 1 - sum(r for *_, r in seen.cut) / sum(length for _, length, _ in seen.cut)
            share = len(seen.cut) / seen.inputs
            many = f"{len(seen.cut):,} of {seen.inputs:,}" if counts else f"{share:.0%} of the"
            note = (
                f"{many} {what} are longer than {limit} and cut:"
                f" {lost:.0%} of their {unit} are not read"
            )
            shown = [f"number {n} has {length:,.6g}" for n, length, _ in seen.cut[:named]]
            more = [f"and {len(seen.cut) - named} more"] if named < len(seen.cut) else []
            found.append(f"{note} ({', '.join([*shown, *more])})" if shown else note)
        return found


@dataclass
class _Cut:
    """How many inputs there were; of each that is cut, its number, length and what is read."""

    inputs: int = 0
    cut: list[tuple[int, float, float]] = field(default_factory=list)


# ----------------------------------------------------------------------------------------- examples
@runtime_checkable
class HasOrigin(Protocol):
    """An example that says where it was read: its file and line, or row."""

    @property
    def origin(self) -> str:
        """In the words of messages; may be empty."""


@runtime_checkable
class HasName(Protocol):
    """An example with a name that is unique in its source."""

    @property
    def name(self) -> str:
        """The name."""


@dataclass(frozen=True)
class Document:
    """A text to learn from. ``name`` is unique in its source; ``origin`` says where it was read
    (file, line)."""

    name: str
    text: str
    origin: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a tokenizer is fitted to, as of all kinds of examples."""
        return (self.text,)


@dataclass(frozen=True)
class ToolCall:
    """A tool that the assistant calls: its name, its arguments as plain values by name, and the
    call's own name."""

    name: str
    arguments: dict[str, Any]
    identity: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is system, user, assistant or tool.

    Attributes:
        tool_calls: What the assistant calls, after what it says.
        name: The tool whose result this is, where that is known.
        call: The identity of the call that this answers, where that is known.
        trained: Whether an answer is learned, or only read.
        reasoning: What the assistant thinks before it answers.
        extra: Further keys, which a chat template has to read.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str = ""
    call: str = ""
    trained: bool = True
    reasoning: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All that is thought, said and called, to count and to compare by."""
        calls = [json.dumps([c.name, c.arguments], ensure_ascii=False) for c in self.tool_calls]
        return "\n".join([*filter(None, (self.reasoning, self.content)), *calls])


@dataclass(frozen=True)
class Conversation:
    """Turns in order, and the tools that may be called, each as
    ``{"type": "function", "function": {"name": ...}}``.

    ``group`` is the document it was made from, for splits without leakage.
    """

    name: str
    messages: tuple[Message, ...]
    origin: str = ""
    group: str = ""
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """All turns, to count and to compare by."""
        return "\n".join(message.text for message in self.messages)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said in each turn."""
        return tuple(message.text for message in self.messages)


@dataclass(frozen=True)
class Preference:
    """A prompt with two answers to it, and what people think of them.

    Attributes:
        prompt: The turns before the answer.
        answers: The turns of each. Of a pair: the chosen one and the rejected one. Of an answer
            evaluated by itself: it, and an answer that was given to another prompt.
        good: Whether the first is a good answer; None: it is better than the second.
        group: What the prompt has in common with others of the same first question, for splits
            without leakage.
        reference: The log-probability of each answer, in nats, under the weights that a run starts
            from, once known.
        tools: The tools that may be called, as those of a conversation.
    """

    name: str
    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], tuple[Message, ...]]
    good: bool | None = None
    origin: str = ""
    group: str = ""
    reference: tuple[float, float] | None = None
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """The prompt with each of its answers, as they are read."""
        read = [turn for answer in self.answers for turn in (*self.prompt, *answer)]
        return "\n".join(turn.text for turn in read)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is said in each turn, of the prompt once."""
        return tuple(turn.text for turns in (self.prompt, *self.answers) for turn in turns)


@dataclass(frozen=True)
class Example:
    """Something to predict from, such as a picture's pixels or its path, and what is to be
    predicted, or None.

    ``predicts_text`` says that it is a text, which a tokenizer is fitted to as well.
    """

    name: str
    inputs: Any
    target: Any = None
    origin: str = ""
    predicts_text: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """The input, or both of a pair, and a text that is to be predicted."""
        read = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        return tuple(map(str, (*read, self.target) if self.predicts_text else read))


class StoredFile(ABC):
    """A picture's or a sound's file that is in a row of a data set: read whenever it is needed,
    never kept.

    ``str`` says where it is, for messages.
    """

    @abstractmethod
    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            DataError: If there are none.
        """


@dataclass(frozen=True)
class TokenSequence:
    """What a task makes of one example: tokens (T,) and, where not all are trained on, which are
    (T,) as booleans.

    ``trained[i]`` says whether the model is to learn to *produce* ``tokens[i]``; ``None`` means
    every token but the first.
    """

    tokens: NDArray[np.int32]
    trained: NDArray[np.bool_] | None = None

    def end_of_whole_answers(self, longest: int) -> int:
        """Return how many tokens to keep, at most ``longest``, to end with a whole answer.

        That is the end of the last run of trained tokens that ends in time, its stop token
        included; 0 where none does.
        """
        if self.trained is None:
            return min(len(self.tokens), longest)
        # a first token is read, whatever its mask says: nothing comes before it
        learned = np.append(np.asarray(self.trained[1:], dtype=np.bool_), False)
        ends = np.flatnonzero(learned[:-1] & ~learned[1:]) + 2
        fitting = ends[ends <= longest]
        return int(fitting[-1]) if len(fitting) else 0


# --------------------------------------------------------------------------------------------- loss
@dataclass(frozen=True)
class Term:
    """One part of a loss: ``total`` is a SUM over ``count`` tokens, images or pairs; ``weight``
    scales its mean."""

    total: Tensor
    count: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Loss:
    """The terms to minimise, and sums for metrics that are only watched (each a scalar tensor)."""

    terms: dict[str, Term]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What one optimizer step did. Losses are means over the global batch, in the task's unit (nats
    a token)."""

    step: int
    loss: float
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    count: int  # tokens (or images, pairs) trained on in this step
    samples_seen: int
    skipped: bool = False


# --------------------------------------------------------------------------------------- evaluation
@dataclass(frozen=True)
class Table:
    """A titled table for the report and, unless ``printed`` is false, the printed summary. Cells:
    text or numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str | float | int | None, ...]]
    note: str = ""
    printed: bool = True


@dataclass(frozen=True)
class Figure:
    """Something for the report to draw; ``content`` holds plain JSON values.

    Kinds:
        matrix: ``labels`` and ``counts``, a row for each true class, a column for each predicted.
        reliability: ``bins``, each with ``confidence``, ``right`` (shares, 0 to 1) and ``count``.
        pictures: ``items``, each with ``true``, ``predicted``, ``probability``, ``name`` and
            ``picture`` (a PNG as a data address) or ``text``.
        scatter: ``points``, each (predicted, true).
        boards: ``items``, positions of a game: ``rows``, ``played``, ``value``, ``moves``.
        sheet: ``picture``, a grid of others; pairs: ``items``, each with ``name``, ``label``,
            ``picture``, and whether it is ``marked``.
        lines: ``series``, each with ``name`` and ``points`` (x, y), shares of 0 to 1; ``x`` and
            ``y`` say what of.
    """

    kind: Literal[
        "matrix", "reliability", "pictures", "scatter", "sheet", "pairs", "lines", "boards"
    ]
    title: str
    content: dict[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What evaluating a model found: plain numbers by name (units in the names), tables to read,
    figures to look at."""

    metrics: dict[str, float]
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
