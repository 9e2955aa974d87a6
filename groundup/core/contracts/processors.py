"""What turns raw data into tensors and back, and what it may offer.

Shape legend: N inputs, V vocabulary, M categorical columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from groundup.core.settings import Settings
from groundup.core.values import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ChatTokenizer",
    "EncodesSpans",
    "FramesTexts",
    "HidesTokens",
    "InputProcessor",
    "LabelProcessor",
    "PadsTexts",
    "Processor",
    "ProcessorConfig",
    "StartsTexts",
    "Targets",
    "TextProcessor",
]


@runtime_checkable
class Processor(Protocol):
    """Raw <-> tensors. It is saved in the run and used by everything downstream."""

    def save(self, folder: Path) -> None:
        """Write everything needed to rebuild it; text and JSON only."""


@runtime_checkable
class TextProcessor(Processor, Protocol):
    """A tokenizer. Token ids are 0 .. vocabulary_size - 1."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def end_id(self) -> int:
        """The token that ends every document; it starts one too where the tokenizer has no
        ``begin_id``."""

    def special_id(self, token: str) -> int | None:
        """Return the id of a special token such as ``<|user|>``, or None."""

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each text. Special tokens spelled out in a text are NOT recognised:
        text stays text."""

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""

    def token_bytes(self) -> NDArray[np.int32]:
        """Return (V,) how many UTF-8 bytes of text each token stands for; special tokens count
        0."""

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, when one travels with the tokenizer."""


@runtime_checkable
class InputProcessor(Processor, Protocol):
    """Turns raw inputs, such as pictures, into tensors of one shape; 0 stands for a length that
    varies."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (C, H, W) of pictures, (0, F) of frames, (I,) of a table's
        numbers."""

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return tensors by the names that models read them by, one row an input.

        ``inputs`` (N, *input_shape) float32, padded with zeros where the length varies, which
        ``lengths`` (N,) int64 then gives; ``categories`` (N, M) int64 for the categorical columns
        of a table.

        Raises:
            DataError: If an input cannot be read or does not fit.
        """


class Targets(Protocol):
    """What is predicted, as tensors: learned from the training split, saved with the processor."""

    kind: str
    outputs: int
    labels: tuple[str, ...]

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return one row for each target.

        Raises:
            DataError: If a target means nothing to a model trained on the training split.
        """

    def to_json(self) -> dict[str, Any]: ...


@runtime_checkable
class LabelProcessor(Processor, Protocol):
    """A processor of inputs with the targets that belong to them; ``processors.labelled`` is the
    one there is."""

    inputs: Any
    targets: Targets
    max_length: int

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def category_sizes(self) -> tuple[int, ...]: ...

    @property
    def outputs(self) -> int: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch: ...


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


# -------------------------------------------------------------------- what tokenizers may offer
@runtime_checkable
class StartsTexts(Protocol):
    """A tokenizer whose texts begin with a token of their own, such as ``<bos>``."""

    @property
    def begin_id(self) -> int: ...


@runtime_checkable
class FramesTexts(Protocol):
    """A tokenizer of an encoder, which puts a token before and one after every text.

    ``frame`` is (first, last); ``between`` are the tokens between the two texts of a pair.
    """

    frame: tuple[int, int] | None
    between: tuple[int, ...]


@runtime_checkable
class PadsTexts(Protocol):
    """A tokenizer with a token that fills rows up."""

    @property
    def padding_id(self) -> int | None: ...


@runtime_checkable
class HidesTokens(Protocol):
    """A tokenizer with a token that stands for a hidden one, such as ``[MASK]``."""

    @property
    def mask_id(self) -> int | None: ...


@runtime_checkable
class EncodesSpans(Protocol):
    """A tokenizer that tells from which characters each token was made."""

    def encode_spans(self, text: str) -> Any: ...


@runtime_checkable
class ChatTokenizer(Protocol):
    """A tokenizer that can take a chat template with it."""

    def with_chat_template(self, template: str) -> Any: ...
