"""The micro-batches of a step as one batch, for processes that compute a whole step at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundup.contracts.data import Refillable, Stream
from groundup.core.errors import RunError
from groundup.core.values import Batch

__all__ = ["WholeSteps", "join_batches", "separate_batches"]

# Before the names of the tensors of each micro-batch.
_JOINED = "micro_batch"


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Return micro-batches as one batch."""
    return {
        f"{_JOINED}/{number}/{name}": tensor
        for number, batch in enumerate(batches)
        for name, tensor in batch.items()
    }


def separate_batches(batch: Batch) -> list[Batch]:
    """Return the micro-batches that ``join_batches`` has made one; any other batch is one by
    itself."""
    found: dict[int, Batch] = {}
    for key, tensor in batch.items():
        joined, _, rest = key.partition("/")
        if joined != _JOINED:
            return [batch]
        number, _, name = rest.partition("/")
        found.setdefault(int(number), {})[name] = tensor
    return list(found.values())


class WholeSteps(Stream):
    """A stream whose batches are all micro-batches of a step, joined.

    Args:
        stream: Of micro-batches.
        number: How many a step has.

    Raises:
        RunError: If its examples are made by the weights, of which each process has a part.
    """

    def __init__(self, stream: Stream, number: int) -> None:
        if isinstance(stream, Refillable):
            raise RunError(
                "recipe.parallel.pipeline",
                "needs data that is there before the run, but this run's examples are made by the"
                " weights, of which each process has a part",
                "Remove it, or share the batch with replicate",
            )
        self._stream = stream
        self._number = number

    def __next__(self) -> Batch:
        return join_batches([next(self._stream) for _ in range(self._number)])

    @property
    def samples_per_epoch(self) -> int:
        """How many samples one pass over the data holds."""
        return self._stream.samples_per_epoch

    def counts(self) -> dict[str, int]:
        """Return what else can be counted in one pass."""
        return self._stream.counts()

    def state_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._stream.load_state_dict(state)

    def close(self) -> None:
        """Stop the workers."""
        self._stream.close()
