"""What turns raw data into tensors and back, and what it may offer.

Everything that is asked of one is declared here. The abstract classes answer neutrally for what a
processor need not have, so that one of your own only overrides what it does have.

Shape legend: N inputs, T tokens, V vocabulary, C channels, M categorical columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from groundup.core.errors import RecipeError
from groundup.core.settings import Settings
from groundup.core.values import Batch, CutInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "AddsTokens",
    "EncodesSpans",
    "InputProcessor",
    "LabelProcessor",
    "Pictures",
    "Processor",
    "ProcessorConfig",
    "ReadFromFiles",
    "ReadsGGUF",
    "Targets",
    "TextProcessor",
    "WritesGGUF",
]


class Targets(ABC):
    """What is predicted, as tensors: learned from the training split, saved with the processor.

    Attributes:
        kind: ``class`` and ``classes`` (one for an example, or any number), ``numbers``,
            ``several`` (of several tasks) or ``fixed`` (the same whatever the data).
        outputs: How many numbers a model gives for an example.
        labels: The names of the classes or numbers, where they have any.
        counts: How many training examples each class has; empty where nobody counted.
        parts: The targets of each task, where there are several.
        learned: Whether the data decide what is predicted: other data need a new head.
        notes: What there is to say of the training split's targets, a line each.
    """

    kind: str
    outputs: int
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    parts: Mapping[str, Targets] = MappingProxyType({})
    learned: bool = True
    notes: tuple[str, ...] = ()

    @abstractmethod
    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return one row for each target.

        Raises:
            DataError: If a target means nothing to a model trained on the training split.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return what the targets can be rebuilt from."""

    def in_order(self, labels: Sequence[str]) -> Targets:
        """Return the same classes, numbered in the order of ``labels``; itself, where it has no
        classes."""
        return self

    def lacks(self, target: Any) -> bool:
        """Return whether an example has no such target: None, or not a number."""
        return target is None or (isinstance(target, float) and target != target)


class Processor(ABC):
    """Raw <-> tensors. It is saved in the run and used by everything downstream.

    Attributes:
        targets: What is predicted, where the processor knows it.
        notes: What there is to say of the data that it was fitted to, a line each.
        cut: What was counted of the inputs encoded so far; None where none is ever cut.
    """

    targets: Targets | None = None
    notes: tuple[str, ...] = ()
    cut: CutInputs | None = None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything needed to rebuild it; text and JSON only."""

    @property
    def reader(self) -> Processor:
        """What reads the inputs: the processor itself, or the one that it adds targets to."""
        return self

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are; 0 where inputs are numbers."""
        return 0

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes that are predicted, where there are any."""
        return ()


class TextProcessor(Processor):
    """A tokenizer. Token ids are 0 .. vocabulary_size - 1.

    Attributes:
        special_tokens: The ids of the tokens that stand for no text, by their names.
        stripping_tokens: Of special tokens that take the blanks before or behind them with them:
            whether those before, and whether those behind.
        start_token: What chat templates call ``bos_token``.
        begin_token: The special token that is put before every text, if it is not the end token.
        frame: The tokens that an encoder expects before and after a text.
        between: The tokens that an encoder expects between two texts, and the kind of the second
            one's.
        padding_id: The token that fills rows up; None: the end token does.
        mask_id: The token that stands for a hidden one, such as ``[MASK]``.
        other_ends: Tokens that end what a model writes, in addition to the end token.
    """

    special_tokens: Mapping[str, int] = MappingProxyType({})
    stripping_tokens: Mapping[str, tuple[bool, bool]] = MappingProxyType({})
    start_token: str | None = None
    begin_token: str | None = None
    frame: tuple[int, int] | None = None
    between: tuple[tuple[int, ...], int] | None = None
    padding_id: int | None = None
    mask_id: int | None = None
    other_ends: tuple[int, ...] = ()

    @cached_property
    def cut(self) -> CutInputs:  # type: ignore[override]
        """What was counted of texts that a task cuts."""
        return CutInputs()

    @property
    @abstractmethod
    def vocabulary_size(self) -> int: ...

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The token that ends every document."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end what a model writes; the first ends every document."""
        return (self.end_id, *self.other_ends)

    @property
    def begin_id(self) -> int:
        """The token that starts every document: the end token, where there is no other."""
        return self.end_id

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each text. Special tokens spelled out in a text are NOT recognised:
        text stays text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""

    @abstractmethod
    def token_bytes(self) -> NDArray[np.int32]:
        """Return (V,) how many UTF-8 bytes of text each token stands for; special tokens count
        0."""

    def special_id(self, token: str) -> int | None:
        """Return the id of a special token such as ``<|user|>``, or None."""
        return self.special_tokens.get(token)

    def encode_parts(
        self, texts: Sequence[str], continues: Sequence[bool]
    ) -> list[NDArray[np.int32]]:
        """Return ``encode_batch`` of texts, some of which go on where another ended: a tokenizer
        that puts a space before a text puts none before these."""
        return self.encode_batch(texts)

    def continuations(self) -> NDArray[np.bool_]:
        """Return (V,) which tokens go on with the word of the token before them; none, where each
        token is taken as a word."""
        return np.zeros(self.vocabulary_size, dtype=np.bool_)

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, when one travels with the tokenizer."""
        return None

    def with_chat_template(self, source: str | None) -> TextProcessor:
        """Return the tokenizer with another chat template; itself, where it carries none."""
        return self


class InputProcessor(Processor):
    """Turns raw inputs, such as pictures, into tensors of one shape; 0 stands for a length that
    varies."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W) of pictures, (0, F) of frames, (I,) of a table's
        numbers."""

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each categorical column has, the unknown one included."""
        return ()

    @abstractmethod
    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return tensors by the names that models read them by, one row an input.

        ``inputs`` (N, *input_shape) float32, padded with zeros where the length varies, which
        ``lengths`` (N,) int64 then gives; ``categories`` (N, M) int64 for the categorical columns
        of a table.

        Raises:
            DataError: If an input cannot be read or does not fit.
        """

    def to_huggingface(self) -> dict[str, Any] | None:
        """Return the contents of preprocessor_config.json; None where that library has no such."""
        return None


class LabelProcessor(InputProcessor):
    """A processor of inputs with the targets that belong to them.

    Attributes:
        inputs: What reads the inputs.
        targets: What is predicted.
        max_length: Texts are cut to this many tokens.
        pairs: Whether an input is two texts.
        head: What a model is to give where that is not labels of a text: ``tokens``, outputs for
            each; ``none``, the states.
    """

    inputs: TextProcessor | InputProcessor
    targets: Targets
    max_length: int
    pairs: bool = False
    head: str | None = None

    @property
    def reader(self) -> TextProcessor | InputProcessor:
        """What reads the inputs."""
        return self.inputs

    @property
    def tokenizer(self) -> TextProcessor:
        """What reads the inputs, for a task whose inputs are texts.

        Raises:
            RecipeError: If they are not.
        """
        if not isinstance(self.inputs, TextProcessor):
            raise RecipeError(
                "recipe.processor", "makes no tokens, which the task reads", "Use a tokenizer"
            )
        return self.inputs

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are; 0 where inputs are numbers."""
        return self.inputs.vocabulary_size

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, or of the numbers."""
        return self.targets.labels

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for an input."""
        return self.targets.outputs

    @abstractmethod
    def as_list(self, inputs: Any) -> tuple[list[Any], bool]:
        """Return inputs as a list, and whether they were several; a tuple of two texts is one
        pair."""


class ProcessorConfig(Settings, ABC):
    """The recipe's ``processor`` section. ``reads`` says what it is fitted to: texts, or a source's
    raw examples."""

    reads: ClassVar[Literal["texts", "examples"]] = "texts"

    @abstractmethod
    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Return the processor, learned from training texts or examples where it has to learn (BPE,
        characters)."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Processor:
        """Return the processor that ``Processor.save`` wrote to ``folder``."""


# ------------------------------------------------------------------- what some of them can do too
@runtime_checkable
class ReadFromFiles(Protocol):
    """Settings of a tokenizer that comes in files, such as those next to pretrained weights."""

    path: str
    end_token: str | None


@runtime_checkable
class AddsTokens(Protocol):
    """A tokenizer that can be given further tokens."""

    def with_added_tokens(
        self, words: Sequence[str], special: Sequence[str]
    ) -> tuple[TextProcessor, list[str]]:
        """Return the tokenizer with a token for each word, numbered after its own; and in words
        what becomes of those that it had.

        Args:
            words: Found in texts as wholes.
            special: Tokens that stand for no text.
        """

    def number_of(self, token: str) -> int | None:
        """Return the id of a token by what it is written as, or None."""


@runtime_checkable
class EncodesSpans(Protocol):
    """A tokenizer that tells from which characters each token was made."""

    def encode_spans(
        self, texts: Sequence[str]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Return of each text its tokens (T,), and where in it each begins and ends, in characters
        (T, 2)."""


@runtime_checkable
class Pictures(Protocol):
    """A processor of pictures, which can show what a model reads."""

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Return (N, C, H, W) with 0 for black and 1 for white, of what ``encode_inputs`` gave."""

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """Return what a model reads, of pixels between 0 and 1."""


@runtime_checkable
class WritesGGUF(Protocol):
    """A tokenizer that has a place in a GGUF file."""

    def to_gguf(self, size: int, name: str = "") -> dict[str, Any]:
        """Return the metadata that describe it.

        Args:
            size: How many tokens the model has.
            name: What the model is called.

        Raises:
            CheckpointError: If a part of it has no place in such files.
        """


@runtime_checkable
class ReadsGGUF(Protocol):
    """The class of settings of a tokenizer that is read from GGUF files.

    Attributes:
        gguf_models: Values of ``tokenizer.ggml.model`` it reads, and their meaning.
    """

    gguf_models: ClassVar[Mapping[str, str]]

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], end_token: str | None = None) -> TextProcessor:
        """Return the tokenizer that a file's metadata describe; ``end_token`` replaces the file's.

        Raises:
            CheckpointError: If it is of another kind, or its tables do not fit together.
        """
