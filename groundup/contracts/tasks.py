"""What a task must be, and what it may offer: the loss, the metrics and how to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from groundup.contracts.data import DataSource, Partners
from groundup.core.settings import Settings
from groundup.core.values import Batch, Evaluation, Loss, Split, TokenSequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PREDICTION",
    "Chats",
    "Distils",
    "DrawsPictures",
    "EvaluationContext",
    "MeasuresOutputs",
    "Objective",
    "Picture",
    "PredictsTokens",
    "ReadsModelFolder",
    "SeveralSequences",
    "Start",
    "Streams",
    "Task",
]

PREDICTION = "prediction"
"""The column of what is predicted, in files of predictions."""

Objective = Callable[[Any, Batch], Loss]
"""What a step minimises, from a model's outputs and the batch."""


@dataclass(frozen=True)
class Picture:
    """A picture that a model made, as a prediction.

    Attributes:
        pixels: (H, W) in grey or (H, W, 3) in colour.
        facts: What is said of it where texts are printed, plain JSON values by name.
    """

    pixels: NDArray[np.uint8]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What a run starts from, for a task that asks the starting weights about the data.

    Attributes:
        model: Builds the model with these weights, before any adapter, in evaluation mode on the
            run's device.
        key: Makes what changes whenever the weights, the model or the processor do.
        cache: A folder for what is computed, shared by runs.
        splits: The parts of the data that they are asked about.
    """

    model: Callable[[], nn.Module]
    key: Callable[[], str]
    processor: Any
    sequence_length: int
    cache: Path
    splits: tuple[Literal["train", "validation", "test"], ...]


@dataclass(frozen=True)
class EvaluationContext:
    """What a task evaluates a model with.

    Attributes:
        examples: Raw examples of a split, in the source's order.
        held_out: The split to evaluate on: the test split where the data has one.
        base: The model and processor this one was fine-tuned from, to compare before and after.
        base_examples: Raw examples of a split of what the base was trained on.
        base_held_out: The split to evaluate on there.
        judge: The model and processor of the run that ``DrawsPictures.judge`` names.
        checkpoints: Those of the run, with the step of each and what builds its model.
        sequence_length: The context to evaluate with, in tokens.
        limit: Evaluate at most N examples where each costs a generation.
    """

    model: nn.Module
    processor: Any
    examples: Callable[[Split], Iterable[Any]]
    sequence_length: int
    base: tuple[nn.Module, Any] | None = None
    base_examples: Callable[[Split], Iterable[Any]] | None = None
    base_held_out: Split = "validation"
    judge: tuple[nn.Module, Any] | None = None
    checkpoints: Sequence[tuple[int, Callable[[], nn.Module]]] = ()
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
    file_source: ClassVar[str] = ""
    """The data source that reads files for this task, where a run has no files of its own."""
    default_temperature: ClassVar[float | None] = 0.0
    """By what ``predict`` draws where nobody says: 0 takes the likeliest token; None: as the task
    decides."""
    default_settings: ClassVar[Mapping[str, Any]] = {}
    """Values for dotted keys of the recipe that it leaves out, such as
    ``{"optim.weight_decay": 0.0}``. They are written into the run's recipe."""

    @property
    def loss_is_sum(self) -> bool:
        """Whether the loss is a sum over examples. Accumulating with one that is not is an
        error."""
        return True

    @property
    def orders_classes(self) -> bool:
        """Whether the processor's classes have an order of their own, which nothing may change."""
        return False

    @property
    def compares_with_pretrained(self) -> bool:
        """Whether ``evaluate`` can compare with the pretrained weights that a run began with; they
        need a head for what the task predicts."""
        # Pretrained language models predict tokens; heads for classes are new and know nothing yet.
        return self.unit == "tokens"

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

    @property
    def augments_held_out(self) -> bool:
        """Whether ``augment`` changes validation and test examples too, with the seed -1."""
        return False

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Partners,
        processor: Any,
        seed: int,
    ) -> Batch:
        """Return a training micro-batch changed at random, each sample by a generator keyed by its
        number alone.

        Args:
            batch: What ``encode`` gave, one row a sample. Not to be changed in place.
            samples: (B,) the samples' numbers, counted from the start of the run: what draws are
                keyed by.
            partners: Returns as many other training examples, chosen by key, for mixtures; of
                several, ``partners(0)``, ``partners(1)`` and so on.
            processor: The run's processor.
            seed: The run's seed.
        """
        return batch

    @abstractmethod
    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments of the model's forward.

        Noise that the model reads, as in diffusion, is drawn in ``augment`` by
        ``seeding.keyed_noise``, which keys it by the sample, and is found in the batch here.
        """

    def prediction_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments with which the model returns its predictions themselves,
        where with ``inputs`` it returns a sum over the batch."""
        return self.inputs(batch)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model on a batch and return its outputs.

        A task that asks for something else than the model's forward, such as log-probabilities of
        given tokens, does so here. A run that cuts the model into stages takes only tasks that
        leave this as it is.
        """
        return model(**self.inputs(batch))

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

    def watched(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return what the log says of a training step next to its loss, from the means of the terms
        and metrics over its micro-batches."""
        return {}

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that a model just built gives what this task needs.

        Raises:
            RecipeError: If it does not.
        """
        return None

    def add_parameters(self, model: nn.Module, processor: Any) -> None:
        """Add to a model just built what this task learns itself, such as weights of its losses.

        It is a module named ``task_weights``: trained, saved and resumed with the model, and begun
        from scratch in a run that starts from another run's weights. The model's own tensors keep
        their names.
        """
        return None

    def precompute(self, source: DataSource, start: Start) -> DataSource:
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

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Any, **options: Any
    ) -> list[dict[str, Any]]:
        """Return what is predicted for each of several inputs, by the names of columns: plain
        values, lists of them, or dictionaries of numbers by name. Of a picture what is said of
        it."""
        found = self.predict(model, list(inputs), processor, **options)
        return [
            dict(each.facts) if isinstance(each, Picture) else {PREDICTION: each} for each in found
        ]

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a trained model on held-out examples."""


# ---------------------------------------------------------------------------- what tasks may offer
@runtime_checkable
class Streams(Protocol):
    """A task that writes text, which can be shown while it is written."""

    def stream(
        self, model: nn.Module, prompt: Any, processor: Any, **options: Any
    ) -> Iterator[str]:
        """Yield the prediction piece by piece."""


@runtime_checkable
class Chats(Streams, Protocol):
    """A task whose prompts may be conversations: a tuple of ``Message``."""

    def chat_template(self, processor: Any) -> Any:
        """Return the ``ChatTemplate`` by which the processor's tokens are made."""


@runtime_checkable
class ReadsModelFolder(Protocol):
    """A task of which folders of pretrained weights have files, such as how texts are pooled."""

    @classmethod
    def settings_in(cls, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a folder says, without those that the recipe gives.

        Raises:
            CheckpointError: If it says what is not built.
        """

    def differences(self, folder: Path) -> list[str]:
        """Return in words what is done otherwise than a folder says."""

    def model_files(self, config: Mapping[str, Any], processor: Any) -> dict[str, Any]:
        """Return files in JSON for the folder of a trained model, from what its config.json says
        and the run's processor; what they say is added to generation_config.json."""


@runtime_checkable
class SeveralSequences(Protocol):
    """A task that makes several token sequences of an example, as of a pair of answers."""

    def sequences(self, examples: Sequence[Any], processor: Any) -> list[TokenSequence]:
        """Return the sequences, as many of each example, in the examples' order."""


@runtime_checkable
class MeasuresOutputs(Protocol):
    """A task whose validation also measures what the model writes, so that this may choose the
    best checkpoint.

    Attributes:
        measured: How many held-out examples it writes about; 0: none.
    """

    measured: int

    def measure(
        self, model: nn.Module, examples: Sequence[Any], processor: Any
    ) -> dict[str, float]:
        """Return metrics by name. Nothing is drawn from torch's default generator."""


@runtime_checkable
class DrawsPictures(Protocol):
    """A task that makes a ``Picture`` out of noise, by ``drawing_options`` of ``predict`` and a
    seed; what it makes is evaluated by the run in the folder ``judge``, if any."""

    drawing_options: ClassVar[tuple[str, ...]]
    judge: str

    def draw_sheet(
        self, model: nn.Module, prompts: Sequence[str], processor: Any, seed: int
    ) -> bytes:
        """Return a PNG of pictures for a run in training, without torch's default generator."""


@runtime_checkable
class PredictsTokens(Protocol):
    """A task whose targets are tokens of the training texts: validations compare it with guessing
    by their frequency."""

    def target_tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return int64 (N,) the tokens of a batch that are predicted."""


@runtime_checkable
class Distils(Protocol):
    """A task that can learn from a teacher's logits as well as from the data."""

    @property
    def distils(self) -> str:
        """What is predicted, in words, such as "next tokens": a teacher must predict the same. An
        empty text: nothing, with these settings."""

    def prediction_inputs(self, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments with which the model returns logits (B, V) or (B, T, V)."""

    def predicted(self, batch: Batch) -> Tensor:
        """Return (B,) or (B, T) booleans, which of these logits are trained."""

    def prediction_loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Return what ``loss`` does, by these logits."""
