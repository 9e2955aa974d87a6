"""What a data source must be, what it may offer, and the order in which a run sees its examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.core.settings import Settings
from groundup.core.values import Batch, Split, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Augment",
    "BringsProcessor",
    "DataContext",
    "DataSource",
    "DrawsViews",
    "HasTexts",
    "KeepsTokens",
    "LearnsFromSample",
    "Part",
    "Partners",
    "PreparesInParts",
    "Refillable",
    "Stream",
    "Unlabelled",
    "Views",
]


class Partners(Protocol):
    """Other training examples for a micro-batch, to mix with its own."""

    def __call__(self, which: int = 0) -> Batch:
        """Return as many other examples, each chosen by its sample's number and ``which``."""


Augment = Callable[[Batch, "NDArray[np.int64]", Partners], Batch]
# examples, the numbers of their samples, and what they are read for: empty, or of partners' kind
Views = Callable[[Sequence[Any], "NDArray[np.int64]", str], Sequence[Any]]


@runtime_checkable
class DrawsViews(Protocol):
    """A task that may read another part of a training example each time it comes.

    A part of a large picture is cut out of what is decoded, before it gets its size: cut out of a
    picture that has it already, it would be magnified pixels.
    """

    def views(self, seed: int) -> Views | None:
        """Return what draws the parts, keyed by ``seed`` and the samples' numbers; None where all
        of each example is read."""


@dataclass(frozen=True)
class DataContext:
    """What a data source is opened with.

    Sample n of the run is a function of (seed, n) alone. Ranks and micro-batches only decide who
    computes it: with ``batch_size`` samples a step over all ranks, micro-batch k of rank r in step
    s holds the samples
    ``s * batch_size + (k * world + r) * micro_batch_size + [0, micro_batch_size)``.

    Attributes:
        encode: The task's ``encode`` with the processor bound: token sequences, or tensors of all
            examples stacked.
        encode_key: Changes whenever ``encode`` would give other tokens; part of the name of the
            cached shards.
        cache: A folder for prepared shards, shared by runs.
        augment: The task's ``augment`` with the processor bound, or None where nothing is
            augmented.
        views: Says what of each example is read, drawn for its sample, before it is encoded; None
            where all of it is. Examples are then encoded anew each time.
    """

    split: Split
    encode: Callable[[Sequence[Any]], Any]
    encode_key: str
    end_id: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    seed: int
    cache: Path
    workers: int = 0
    # Part of the contract already, so that the order of samples is the same on one device and many.
    rank: int = 0
    world: int = 1
    augment: Augment | None = None
    views: Views | None = None


@dataclass(frozen=True)
class Unlabelled:
    """A row, or a file, to predict from.

    Attributes:
        columns: What is known of it, which is repeated next to what is predicted.
        inputs: What a model is given; None where it cannot be read.
        origin: Where it was read.
        problem: Why it cannot be read; empty where it can.
        remedy: What to do about it.
    """

    columns: dict[str, Any]
    inputs: Any
    origin: str
    problem: str = ""
    remedy: str = ""


class Stream(ABC):
    """Micro-batches in the order of the run. ``state_dict`` is the cursor of what was DELIVERED,
    not prefetched."""

    @abstractmethod
    def __next__(self) -> Batch:
        """Return the next micro-batch. A training stream never ends; a validation stream raises
        StopIteration, on all ranks after as many: where nothing is left for one, its last one is
        without tensors."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    @property
    @abstractmethod
    def samples_per_epoch(self) -> int:
        """How many samples one pass over the data holds."""

    def counts(self) -> dict[str, int]:
        """Return what else can be counted in one pass, by name, such as tokens."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned; ``{"samples": 0}`` is the beginning."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers."""


@runtime_checkable
class HasTexts(Protocol):
    """A raw example that a tokenizer can be fitted to."""

    @property
    def texts(self) -> Iterable[str]:
        """Its texts, one after the other."""


@runtime_checkable
class Refillable(Protocol):
    """A stream whose next examples are made by the current weights: self-play, online preferences,
    reinforcement learning.

    Its examples cannot be made again, because the weights that made them are gone: they are saved
    with each checkpoint. ``contracts.experience`` has a stream that keeps all of this.
    """

    def refill(self, model: nn.Module, step: int) -> None:
        """Make the examples of step ``step``, or keep those of before where they still serve.

        Called before every training step, on every rank, with the same weights, and before a
        held-out split is read; in evaluation mode, without gradients and in the precision of the
        run. ``model`` may be wrapped for sharding, so its tensors are not written to. Draws are
        keyed by the run's seed and ``step``.
        """

    def buffer(self) -> dict[str, Tensor]:
        """Return the examples that later steps still read, as tensors by name. With
        ``state_dict``, which holds plain JSON values, it is all that the rest of the run depends
        on."""

    def load_buffer(self, tensors: dict[str, Tensor]) -> None:
        """Go on with what ``buffer`` returned, after ``load_state_dict``."""


@dataclass(frozen=True)
class Part:
    """One of several parts of a corpus, each prepared by a job of its own.

    Attributes:
        number: From 1.
        of: How many parts there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@runtime_checkable
class LearnsFromSample(Protocol):
    """Settings of a processor that learns from as many bytes of text at most, drawn by
    ``TextSample``."""

    @property
    def sample_bytes(self) -> int: ...


@runtime_checkable
class PreparesInParts(Protocol):
    """A source that several jobs can prepare, on machines that share the cache: in two rounds,
    first the documents and then their tokens, each of which ends with joining the parts.

    What is joined is the same, byte by byte, for any number of parts, and what one process makes.
    A part that is there already is not made again.
    """

    def is_joined(self, cache: Path) -> bool:
        """Return whether it is decided what becomes of every document."""

    def examine_part(self, part: Part, cache: Path, sample_bytes: int) -> bool:
        """Note the facts of a part's documents, and draw what a tokenizer may be learned from, as
        much as ``sample_bytes``; return False where they were there already."""

    def join_examined(self, parts: int, cache: Path, sample_bytes: int) -> None:
        """Decide what becomes of every document, from the facts of all parts.

        Raises:
            DataError: If a part is missing.
        """

    def drawn_texts(self, cache: Path, sample_bytes: int) -> Callable[[], Iterator[str]] | None:
        """Return what gives the sample of all training texts that the parts have drawn; None where
        they have drawn none."""

    def encode_part(self, part: Part, context: DataContext) -> bool:
        """Make the tokens of a part's documents of a split; return False where they were there."""

    def join_encoded(self, parts: int, context: DataContext) -> None:
        """Put the tokens of all parts together, as ``open`` reads them.

        Raises:
            DataError: If a part is missing.
        """

    def remove_parts(self, cache: Path) -> None:
        """Remove what was kept for parts, once all is joined."""


@runtime_checkable
class BringsProcessor(Protocol):
    """A source whose tokens are made: the processor that made them comes with them."""

    def processor_folder(self, cache: Path) -> Path:
        """Return a folder that the processor is saved in."""


@runtime_checkable
class KeepsTokens(Protocol):
    """A source whose tokens are in files, which can be kept elsewhere for other machines."""

    def write_tokens(self, address: str, processor: Path, contexts: Sequence[DataContext]) -> int:
        """Write the tokens of all splits to an address, made if they are not there yet.

        Args:
            address: A folder, or such as ``s3://bucket/folder``.
            processor: The folder that the processor is saved in, written as well.
            contexts: One for each split.

        Returns:
            How many bytes there are.
        """


class DataSource(Settings, ABC):
    """The recipe's ``data`` section.

    Attributes:
        packs_rows: Whether ``open`` gives packed rows of tokens, which a mixture can put together.
    """

    packs_rows: ClassVar[bool] = False

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are; ``"test"`` is one that training never looks at, evaluated
        instead of validation."""
        return ("train", "validation")

    @abstractmethod
    def examples(self, split: Split, cache: Path) -> Iterable[Any]:
        """Return the raw examples of a split, cleaned and split without leakage; each call iterates
        from the start.

        ``cache`` is a folder where prepared files may be kept between runs.
        """

    @abstractmethod
    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split, prepared (tokenized, packed) in the cache."""

    def reading(self, path: str) -> DataSource | None:
        """Return the source that reads another file or folder with the same settings, all of it as
        one split, unless parts of it are called like splits; None where this one reads no
        files."""
        return None

    def unlabelled(self, path: str) -> Iterator[Unlabelled]:
        """Yield the rows of a file, or the files of a folder, as inputs without what is to be
        predicted, in order.

        Raises:
            DataError: If the file cannot be read, or this source reads none.
        """
        raise DataError(
            path,
            f"data {self.registered_name} reads no files to predict from",
            "Predict from Python: groundup.load(run)(inputs)",
        )

    def card(self, cache: Path) -> dict[str, Any]:
        """Return the data card: counts, what cleaning removed and why, splits, licence."""
        return {}

    def contents(self) -> Mapping[str, Path | str]:
        """Return what is read: each file by a name that is the same wherever the data are, such as
        ``train/a.csv``, and the version of what is no file.

        A run that goes on, or is given back, has them compared with what it began with. Where
        nothing is returned, nothing is compared.
        """
        return {}

    def too_long_policy(self) -> str:
        """Return what becomes of an example longer than the context: ``error``, ``drop``,
        ``split``, ``truncate``, or ``auto``; empty where a source knows no context."""
        return ""

    def part_of(self, example: Any) -> str:
        """Return the name of the part that an example is of, empty where a source has no parts."""
        return ""

    def tables(self, tokens: Mapping[str, int], card: Mapping[str, Any]) -> list[Table]:
        """Return what is shown next to the card when the data are inspected.

        Args:
            tokens: How many training tokens each part has, by the names of ``part_of``.
            card: The source's data card.
        """
        return []
