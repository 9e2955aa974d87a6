"""The contracts between the parts: what a model, a task, a data source and a processor must be.

Shape legend: B rows, T positions, V vocabulary, N boundaries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Batch",
    "Conversation",
    "DataContext",
    "DataSource",
    "Document",
    "Evaluation",
    "EvaluationContext",
    "Example",
    "LabelProcessor",
    "Loss",
    "Message",
    "ModelConfig",
    "Processor",
    "ProcessorConfig",
    "Report",
    "Split",
    "Stream",
    "Table",
    "Task",
    "Term",
    "TextProcessor",
    "TokenSequence",
]

Batch = dict[str, Tensor]
Split = Literal["train", "validation"]


# ---------------------------------------------------------------------------------------------------------- examples
@dataclass(frozen=True)
class Document:
    """A text to learn from. ``name`` is unique in its source; ``origin`` says where it was read (file, line)."""

    name: str
    text: str
    origin: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; ``role`` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order. ``group`` is the document it was made from, for splits without leakage."""

    name: str
    messages: tuple[Message, ...]
    origin: str = ""
    group: str = ""


@dataclass(frozen=True)
class Example:
    """Something to predict from, such as a picture's pixels, and what is to be predicted, or None."""

    name: str
    inputs: Any
    target: Any = None
    origin: str = ""


@dataclass(frozen=True)
class TokenSequence:
    """What a task makes of one example: tokens (T,) and, where not all are trained on, which are (T,) as booleans.

    ``trained[i]`` says whether the model is to learn to *produce* ``tokens[i]``; ``None`` means every token but the
    first.
    """

    tokens: NDArray[np.int32]
    trained: NDArray[np.bool_] | None = None


# -------------------------------------------------------------------------------------------------------------- loss
@dataclass(frozen=True)
class Term:
    """One part of a loss: ``total`` is a SUM over ``count`` tokens, images or pairs; ``weight`` scales its mean."""

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
    """What one optimizer step did. Losses are means over the global batch, in the task's unit (nats a token)."""

    step: int
    loss: float
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    count: int  # tokens (or images, pairs) trained on in this step
    samples_seen: int
    skipped: bool = False


# ------------------------------------------------------------------------------------------------------------- parts
class ModelConfig(Settings, ABC):
    """The recipe's ``model`` section. One file holds the config, the layers, the forward pass and named sizes."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with freshly initialised weights (drawn from torch's default generator)."""

    @classmethod
    def sizes(cls) -> Mapping[str, ModelConfig]:
        """Return the named sizes of this family."""
        return {}

    @property
    def additive(self) -> bool:
        """Whether each example is computed apart from the others of its micro-batch, as under batch norm it is not."""
        return True

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs a token, or an image: 6 x weights used in products + causal attention."""
        return 0.0

    def to_huggingface(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the contents of config.json and the tensors as a model of ``transformers`` names them.

        Raises:
            CheckpointError: If that library has no such model.
        """
        raise CheckpointError("model", "no Hugging Face layout is known for it", "Keep it in the project's own layout")

    def fit_to(self, processor: Processor) -> ModelConfig:
        """Return the config completed with what only the processor knows, such as the vocabulary's size."""
        return self


@runtime_checkable
class Processor(Protocol):
    """Raw <-> tensors. It is saved in the run and used by everything downstream."""

    def save(self, folder: Path) -> None:
        """Write everything needed to rebuild it; text and JSON only."""
        ...


@runtime_checkable
class TextProcessor(Processor, Protocol):
    """A tokenizer. Token ids are 0 .. vocabulary_size - 1."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def end_id(self) -> int:
        """The token that starts and ends every document."""
        ...

    def special_id(self, token: str) -> int | None:
        """Return the id of a special token such as ``<|user|>``, or None."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each text. Special tokens spelled out in a text are NOT recognised: text stays text."""
        ...

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        ...

    def token_bytes(self) -> NDArray[np.int32]:
        """Return (V,) how many UTF-8 bytes of text each token stands for; special tokens count 0."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the chat template, when one travels with the tokenizer."""
        ...


@runtime_checkable
class LabelProcessor(Processor, Protocol):
    """Turns inputs of one shape into tensors, and labels into class numbers 0 .. len(labels) - 1."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, as they stand in the data."""
        ...

    def encode_inputs(self, inputs: Sequence[Any]) -> Tensor:
        """Return (N, *input_shape) float32."""
        ...

    def encode_labels(self, targets: Sequence[Any]) -> Tensor:
        """Return (N,) int64.

        Raises:
            DataError: If a label was not there when the processor was fitted.
        """
        ...


class ProcessorConfig(Settings, ABC):
    """The recipe's ``processor`` section. ``reads`` says what it is fitted to: texts, or a source's raw examples."""

    reads: ClassVar[Literal["texts", "examples"]] = "texts"

    @abstractmethod
    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Return the processor, learned from training texts or examples where it has to learn (BPE, characters)."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Processor:
        """Return the processor that ``Processor.save`` wrote to ``folder``."""


@dataclass(frozen=True)
class DataContext:
    """What a data source is opened with.

    Sample n of the run is a function of (seed, n) alone. Ranks and micro-batches only decide who computes it: with
    ``batch_size`` samples a step over all ranks, micro-batch k of rank r in step s holds the samples
    ``s * batch_size + (k * world + r) * micro_batch + [0, micro_batch)``.

    Attributes:
        encode: The task's ``encode`` with the processor bound: token sequences, or tensors of all examples stacked.
        encode_key: Changes whenever ``encode`` would give other tokens; part of the name of the cached shards.
        cache: A folder for prepared shards, shared by runs.
    """

    split: Split
    encode: Callable[[Sequence[Any]], Any]
    encode_key: str
    end_id: int
    sequence_length: int
    batch_size: int
    micro_batch: int
    seed: int
    cache: Path
    workers: int = 0
    rank: int = 0
    world: int = 1


class Stream(ABC):
    """Micro-batches in the order of the run. ``state_dict`` is the cursor of what was DELIVERED, not prefetched."""

    @abstractmethod
    def __next__(self) -> Batch:
        """Return the next micro-batch. A training stream never ends; a validation stream raises StopIteration."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    @property
    @abstractmethod
    def samples_per_epoch(self) -> int:
        """How many samples one pass over the data holds."""

    @abstractmethod
    def state_dict(self) -> dict[str, int]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, int]) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


class DataSource(Settings, ABC):
    """The recipe's ``data`` section."""

    @abstractmethod
    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        """Return the raw examples of a split, cleaned and split without leakage; each call iterates afresh.

        ``cache`` is a folder where prepared files may be kept between runs.
        """

    @abstractmethod
    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, prepared (tokenized, packed) in the cache."""

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the data card: counts, what cleaning removed and why, splits, licence."""
        return {}


# -------------------------------------------------------------------------------------------------------- evaluation
@dataclass(frozen=True)
class Table:
    """A titled table for the printed summary and the report. Cells are text or numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str | float | int | None, ...]]
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What judging a model found: plain numbers by name (units in the names), and tables to read."""

    metrics: dict[str, float]
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class EvaluationContext:
    """What a task judges a model with.

    Attributes:
        examples: Raw examples of a split, in the source's order.
        base: The model and processor this one was fine-tuned from, to compare before and after.
        sequence_length: The context to judge with.
        limit: Judge at most so many examples where each costs a generation.
    """

    model: nn.Module
    processor: Any
    examples: Callable[[Split], Iterable[Any]]
    sequence_length: int
    base: tuple[nn.Module, Any] | None = None
    seed: int = 0
    limit: int = 10
    progress: Callable[[str], None] = lambda message: None


class Task(Settings, ABC):
    """The recipe's ``task`` section: the loss, the metrics and how to predict. Functions of a batch; no state.

    ``unit`` is what the loss counts, in the plural: logged and shown as ``<unit>`` and ``<unit>_per_s``.
    """

    unit: ClassVar[str] = "tokens"

    @property
    def additive(self) -> bool:
        """Whether the loss is a sum over examples. Accumulating with one that is not is an error."""
        return True

    @property
    @abstractmethod
    def batch_spec(self) -> dict[str, str]:
        """Keys, dtypes and shapes of a batch, such as ``{"tokens": "int64 (B, T)"}``."""

    def fit_processor(self, processor: Any) -> Any:
        """Return the processor completed with what this task reads it by, such as a chat template."""
        return processor

    @abstractmethod
    def encode(self, examples: Sequence[Any], processor: Any) -> list[TokenSequence] | Batch:
        """Return what is learned from each example: token sequences, or tensors with one row an example."""

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments of the model's forward."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """Return sums and counts; the trainer divides once, by the global count."""

    def count_bytes(self, batch: Batch, processor: Any) -> float:
        """Return how many bytes of raw text the targets stand for, 0 where that means nothing."""
        return 0.0

    @abstractmethod
    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return metrics by name from each term's (total, count) summed over a split, and ``"bytes"`` if counted."""

    @abstractmethod
    def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
        """Return the prediction for raw inputs."""

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge a trained model on held-out examples."""
