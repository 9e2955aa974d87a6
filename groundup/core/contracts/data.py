"""Where examples come from, and the order in which a run sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.core.settings import Settings
from groundup.core.values import Batch, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Augment", "DataContext", "DataSource", "Stream"]

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
