"""Examples that the current weights make: a stream that asks for them, keeps them, and goes on with
them bit for bit after a run was killed.

Self-play, online preferences and rewards differ in how an example is made; all else is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.data import DataContext, Stream
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.seeding import generator
from groundup.core.values import Batch

__all__ = ["ExperienceStream"]


class ExperienceStream(Stream, ABC):
    """Rows that the current weights make, kept for several steps and delivered in a keyed order.

    Every ``every`` steps ``make`` gives new rows, and the newest ``capacity`` rows are kept. Until
    the next ones come, the samples of the steps are a keyed permutation of the rows, as often as it
    takes. A held-out stream makes rows each time it is read, and gives each of them once.

    Args:
        context: What the stream is opened with.
        every: Steps that train on the same rows.
        capacity: Rows that are kept; what the latest call of ``make`` gave is kept whole.

    Attributes:
        seed: To draw by: the run's, or -1 for held-out rows, so that runs with other seeds are
            validated alike.
        training: Whether the rows are for training.
        cursor: Plain JSON values of a subclass' own, such as which prompt comes next: saved with
            the stream's state, and empty at the beginning.
    """

    def __init__(self, context: DataContext, every: int, capacity: int) -> None:
        share = context.micro_batch_size * context.world
        if context.batch_size % share:
            raise RecipeError(
                "batch size",
                f"{context.batch_size} is not a multiple of micro-batch"
                f" {context.micro_batch_size} x ranks {context.world}",
                "Change one of them",
            )
        self.training = context.split == "train"
        self.seed = context.seed if self.training else -1
        self.cursor: dict[str, Any] = {}
        self._every = every
        self._capacity = capacity
        self._rank = context.rank
        self._micro_batch_size = context.micro_batch_size
        self._share = share
        self._kept_rows: Batch = {}
        self._samples = 0  # delivered by all ranks together
        self._made_at = -1  # the step
        self._made_after = 0  # samples
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))  # of the newest pass over the rows

    @abstractmethod
    def make(self, model: nn.Module, step: int) -> Batch:
        """Return new rows: tensors by name, of one number of rows.

        They are a function of the weights, ``seed``, ``step`` and ``cursor``, which this may move.
        Called on every rank, which all make the same ones.
        """

    def refill(self, model: nn.Module, step: int) -> None:
        """Make new rows, where it is time; see ``Refillable``."""
        if self.training and self._kept_rows and step < self._made_at + self._every:
            return
        # Kept where there is most memory, and where they are saved from.
        rows = {name: values.cpu() for name, values in self.make(model, step).items()}
        kept = self._capacity - _count(rows)
        if self.training and self._kept_rows and kept > 0:
            rows = {name: torch.cat((self._kept_rows[name][-kept:], rows[name])) for name in rows}
        self._kept_rows = rows
        self._made_at = step
        self._made_after = self._samples
        self._order = (-1, torch.empty(0))

    def __next__(self) -> Batch:
        assert self._kept_rows, "refill comes first"
        first = self._samples - self._made_after + self._rank * self._micro_batch_size
        samples = range(first, first + self._micro_batch_size)
        count = _count(self._kept_rows)
        if self.training:
            chosen = torch.tensor([self._row_of(sample, count) for sample in samples])
        else:
            if self._samples - self._made_after >= count:
                raise StopIteration
            chosen = torch.tensor([n for n in samples if n < count], dtype=torch.int64)
            if not len(chosen):
                # Other ranks have the last rows: what is computed of a batch needs one at least.
                self._samples += self._share
                return {}
        self._samples += self._share
        return {name: values[chosen] for name, values in self._kept_rows.items()}

    def _row_of(self, sample: int, count: int) -> int:
        """Return the row of a sample, counted from when the rows were made."""
        turn, place = divmod(sample, count)
        if self._order[0] != turn:
            draws = generator(self.seed, "order of experience", self._made_at, turn)
            self._order = (turn, torch.randperm(count, generator=draws))
        return int(self._order[1][place])

    def state_dict(self) -> dict[str, Any]:
        """Return how many samples were delivered, when the rows were made, and the cursor."""
        return {
            "samples": self._samples,
            "made_at": self._made_at,
            "made_after": self._made_after,
            "cursor": dict(self.cursor),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, or from the beginning; rows come by ``load_buffer``."""
        self._samples = state["samples"]
        self._made_at = state.get("made_at", -1)
        self._made_after = state.get("made_after", 0)
        self.cursor = dict(state.get("cursor", {}))
        # Those of another moment must not be taken for these.
        self._kept_rows = {}
        self._order = (-1, torch.empty(0))

    def buffer(self) -> dict[str, Tensor]:
        """Return the rows."""
        return dict(self._kept_rows)

    def load_buffer(self, tensors: dict[str, Tensor]) -> None:
        """Go on with rows that were saved.

        Raises:
            CheckpointError: If there are none, but were.
        """
        if self._made_at >= 0 and not tensors:
            raise CheckpointError(
                "experience",
                f"the examples that step {self._made_at} made are not in the checkpoint",
                "Use another checkpoint",
            )
        self._kept_rows = dict(tensors)

    def close(self) -> None:
        """Do nothing: there are no workers."""


def _count(rows: Batch) -> int:
    return len(next(iter(rows.values())))
