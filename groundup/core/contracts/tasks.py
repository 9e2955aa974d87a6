"""What a task must be: the loss, the metrics and how to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from groundup.core.contracts.data import DataSource
from groundup.core.settings import Settings
from groundup.core.values import Batch, Evaluation, Loss, Split, Start, TokenSequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chats", "EvaluationContext", "Objective", "PerExampleLoss", "Streams", "Task"]

Objective = Callable[[Any, Batch], Loss]
"""What a step minimises, from a model's outputs and the batch."""


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
    def loss_is_sum(self) -> bool:
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

    def build_objective(self, model: nn.Module, processor: Any) -> Objective:
        """Return what the steps of a run minimise: ``loss``, unless more than outputs go into it.

        A task that asks the model again, or weighs its terms by parameters it has added, composes
        that here, where the loop sees it; a model's forward is never altered.
        """
        return self.loss

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


# ---------------------------------------------------------------------------- what tasks may offer
@runtime_checkable
class Streams(Protocol):
    """A task whose prediction can be shown while it is made."""

    def stream(
        self, model: nn.Module, prompt: Any, processor: Any, **options: Any
    ) -> Iterator[str]:
        """Yield the prediction piece by piece."""


@runtime_checkable
class Chats(Protocol):
    """A task whose prompts are conversations: what is asked is a tuple of messages."""

    chat_template: Any


@runtime_checkable
class PerExampleLoss(Protocol):
    """A task that tells the loss of each example apart.

    Differential privacy clips each example's gradient, and membership tests compare losses; both
    need them before they are added up.
    """

    def example_losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return (B,) the losses whose sum is that of ``loss``."""
