"""The contracts between the parts: what a model, a task, a data source and a processor must be.

Shape legend: B rows, T positions, V vocabulary, N boundaries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings
from groundup.core.values import Evaluation, Loss, Start, TokenSequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Batch",
    "DataContext",
    "DataSource",
    "EvaluationContext",
    "InputProcessor",
    "LabelProcessor",
    "ModelConfig",
    "Processor",
    "ProcessorConfig",
    "Split",
    "Stream",
    "Targets",
    "Task",
    "TextProcessor",
]

Batch = dict[str, Tensor]
Split = Literal["train", "validation", "test"]


class ModelConfig(Settings, ABC):
    """The recipe's ``model`` section. One file holds the config, the layers, the forward pass and
    named sizes."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model with freshly initialised weights (drawn from torch's default
        generator)."""

    @classmethod
    def sizes(cls) -> Mapping[str, ModelConfig]:
        """Return the named sizes of this family."""
        return {}

    @property
    def additive(self) -> bool:
        """Whether each example is computed apart from the others of its micro-batch, as under batch
        norm it is not."""
        return True

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs a token, or an image: 6 x weights used in products +
        causal attention."""
        return 0.0

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the contents of config.json and the tensors as a model of ``transformers`` names
        them.

        Raises:
            CheckpointError: If that library has no such model.
        """
        raise CheckpointError(
            "model", "no Hugging Face layout is known for it", "Keep it in the project's own layout"
        )

    def fit_to(self, processor: Processor) -> ModelConfig:
        """Return the config completed with what only the processor knows, such as the vocabulary's
        size."""
        return self


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


Augment = Callable[[Batch, "NDArray[np.int64]", Callable[[], Batch]], Batch]


@dataclass(frozen=True)
class DataContext:
    """What a data source is opened with.

    Sample n of the run is a function of (seed, n) alone. Ranks and micro-batches only decide who
    computes it: with ``batch_size`` samples a step over all ranks, micro-batch k of rank r in step
        s holds the samples
    ``s * batch_size + (k * world + r) * micro_batch + [0, micro_batch)``.

    Attributes:
        encode: The task's ``encode`` with the processor bound: token sequences, or tensors of all
            examples stacked.
        encode_key: Changes whenever ``encode`` would give other tokens; part of the name of the
            cached shards.
        cache: A folder for prepared shards, shared by runs.
        augment: The task's ``augment`` with the processor bound, or None where nothing is
            augmented.
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
    augment: Augment | None = None


class Stream(ABC):
    """Micro-batches in the order of the run. ``state_dict`` is the cursor of what was DELIVERED,
    not prefetched."""

    @abstractmethod
    def __next__(self) -> Batch:
        """Return the next micro-batch. A training stream never ends; a validation stream raises
        StopIteration."""

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

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are; ``"test"`` is one that training never looks at, judged
        instead of validation."""
        return ("train", "validation")

    @abstractmethod
    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        """Return the raw examples of a split, cleaned and split without leakage; each call iterates
        afresh.

        ``cache`` is a folder where prepared files may be kept between runs.
        """

    @abstractmethod
    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, prepared (tokenized, packed) in the cache."""

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the data card: counts, what cleaning removed and why, splits, licence."""
        return {}


@dataclass(frozen=True)
class EvaluationContext:
    """What a task judges a model with.

    Attributes:
        examples: Raw examples of a split, in the source's order.
        held_out: The split to judge on: the test split where the data has one.
        base: The model and processor this one was fine-tuned from, to compare before and after.
        base_examples: Raw examples of a split of what the base was trained on.
        base_held_out: The split to judge on there.
        sequence_length: The context to judge with.
        limit: Judge at most so many examples where each costs a generation.
    """

    model: nn.Module
    processor: Any
    examples: Callable[[Split], Iterable[Any]]
    sequence_length: int
    base: tuple[nn.Module, Any] | None = None
    base_examples: Callable[[Split], Iterable[Any]] | None = None
    base_held_out: Split = "validation"
    held_out: Split = "validation"
    seed: int = 0
    limit: int = 10
    progress: Callable[[str], None] = lambda message: None


class Task(Settings, ABC):
    """The recipe's ``task`` section: the loss, the metrics and how to predict. Functions of a
    batch; no state.

    ``unit`` is what the loss counts, in the plural: logged and shown as ``<unit>`` and
    ``<unit>_per_s``.
    """

    unit: ClassVar[str] = "tokens"

    @property
    def additive(self) -> bool:
        """Whether the loss is a sum over examples. Accumulating with one that is not is an
        error."""
        return True

    @property
    @abstractmethod
    def batch_spec(self) -> dict[str, str]:
        """Keys, dtypes and shapes of a batch, such as ``{"tokens": "int64 (B, T)"}``."""

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> Any:
        """Return the processor completed with what this task reads it by, such as a chat template
        or the classes.

        Args:
            processor: As the recipe says, or the base run's.
            examples: Iterates over the training split.
        """
        return processor

    @abstractmethod
    def encode(self, examples: Sequence[Any], processor: Any) -> list[TokenSequence] | Batch:
        """Return what is learned from each example: token sequences, or tensors with one row an
        example."""

    @property
    def augments(self) -> bool:
        """Whether ``augment`` does anything."""
        return False

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Callable[[], Batch],
        processor: Any,
        seed: int,
    ) -> Batch:
        """Return a training micro-batch changed at random, each sample by a generator keyed by its
        number alone.

        Args:
            batch: What ``encode`` gave, one row a sample. Not to be changed in place.
            samples: (B,) the samples' numbers, counted from the start of the run: what draws are
                keyed by.
            partners: Returns as many other training examples, chosen by key, for mixtures of two.
            processor: The run's processor.
            seed: The run's seed.
        """
        return batch

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments of the model's forward."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """Return sums and counts; the trainer divides once, by the global count."""

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count for each of its terms, from the batch alone, or None
        where that is unknown.

        Needed only where the terms of a loss count different things and a step has several
        micro-batches: each term is then its mean over the whole step, and the gradients need the
        counts of the whole step from the first on.
        """
        return None

    def wrap(self, model: nn.Module, processor: Any) -> nn.Module:
        """Return the model with what this task adds to it, such as weights that it learns itself.

        Called on a model just built. The names of the model's own tensors must stay; what is added
        is called
        ``task_weights``: it is trained, saved and resumed with the model, and begins afresh in a
            run that starts from
        another run's weights.
        """
        return model

    def prepare(self, source: DataSource, start: Start) -> DataSource:
        """Return the data completed with what the starting weights say of it, computed once and
        kept in the cache."""
        return source

    def count_bytes(self, batch: Batch, processor: Any) -> float:
        """Return how many bytes of raw text the targets stand for, 0 where that means nothing."""
        return 0.0

    @abstractmethod
    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return metrics by name from each term's (total, count) summed over a split, and
        ``"bytes"`` if counted."""

    @abstractmethod
    def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
        """Return the prediction for raw inputs."""

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge a trained model on held-out examples."""
