"""Examples taken by number: held in memory as stacked tensors, never collated again, or read when
needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.data import DataContext
from groundup.contracts.ragged import take_rows
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.seeding import scramble
from groundup.core.values import Batch
from groundup.data.stream.permutation import permute
from groundup.data.stream.sample_stream import Layout, MicroBatches, SampleStream

__all__ = ["open_indexed_stream"]

# places of the permutation that are computed at once: one by one they take longer than a small
# model
_BLOCK = 4096
_PADDED = ("tokens", "next_tokens", "token_types", "inputs")  # (N, T, ...) where there are lengths


class _Rows(MicroBatches):
    """Rows of tensors in the order of the run: every training epoch a keyed permutation, validation
    in its own order."""

    def __init__(
        self, take: Callable[[NDArray[np.int64]], Batch], size: int, context: DataContext
    ) -> None:
        self.take = take
        self.size = size
        self.layout = Layout.of(context)
        self.augment = context.augment
        self._block: tuple[int, int] = (-1, -1)
        self._rows = np.empty(0, np.int64)

    def __getitem__(self, number: int) -> Batch:
        first = self.layout.first_sample(number)
        count = self.layout.micro_batch_size
        if self.layout.split == "train":
            samples = np.arange(first, first + count)
            rows = self._rows_of(first, count)
        else:
            samples = rows = np.arange(first, min(first + count, self.size))
        batch = self.take(rows)
        if self.augment is None:
            return batch
        # keyed by the sample, as all that is drawn: the same partner whatever the micro-batches are
        partners = scramble(samples, seeding.key(self.layout.seed, "partners")) % np.uint64(
            self.size
        )
        return self.augment(batch, samples, lambda: self.take(partners.astype(np.int64)))

    def _rows_of(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the rows of the samples ``first + [0, count)`` of the run."""
        parts = []
        while count > 0:
            epoch, place = divmod(first, self.size)
            block, offset = divmod(place, _BLOCK)
            part = self._rows_in(epoch, block)[offset : offset + count]
            parts.append(part)
            first += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def _rows_in(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Return the rows at places ``block * _BLOCK + [0, _BLOCK)`` of an epoch's permutation; the
        last are kept."""
        # rows are asked for in order: the block of before is nearly always the one
        if self._block != (epoch, block):
            places = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.size))
            self._rows = permute(places, self.size, seeding.key(self.layout.seed, "rows", epoch))
            self._block = (epoch, block)
        return self._rows

    def samples_per_epoch(self, sample: int) -> int:
        return self.size


class _InMemory:
    """All examples encoded once."""

    def __init__(self, rows: Batch) -> None:
        self.rows = rows

    def __call__(self, chosen: NDArray[np.int64]) -> Batch:
        return _trim(take_rows(self.rows, torch.from_numpy(chosen)))


class _OnDemand:
    """Examples read and encoded when their turn comes, for data larger than memory."""

    def __init__(self, examples: Sequence[Any], encode: Callable[[Sequence[Any]], Batch]) -> None:
        self.examples = examples
        self.encode = encode

    def __call__(self, chosen: NDArray[np.int64]) -> Batch:
        return _trim(self.encode([self.examples[number] for number in chosen.tolist()]))


def open_indexed_stream(
    examples: Sequence[Any], context: DataContext, *, in_memory: bool = True
) -> SampleStream:
    """Open a split of examples that can be taken by number.

    Args:
        examples: The split; with ``in_memory=False`` taking one may read a file.
        context: What to open.
        in_memory: Encode all examples once and keep the tensors, instead of each when its turn
            comes.

    Raises:
        DataError: If there are no examples.
        RecipeError: If the batch size is not a multiple of micro-batch x ranks.
    """
    if not examples:
        raise DataError(
            f"data ({context.split})", "there are no examples", "Check the data section"
        )
    take: Callable[[NDArray[np.int64]], Batch] = _OnDemand(examples, context.encode)
    if in_memory:
        take = _InMemory(context.encode(examples))
    return SampleStream(_Rows(take, len(examples), context), Layout.of(context), context.workers)


def _trim(batch: Batch) -> Batch:
    """Cut what is padded beyond the longest row."""
    if "lengths" not in batch:
        return batch
    # All examples are padded to the longest of all, a batch only to its own: recurrent models and
    # attention take time for padding too.
    longest = int(batch["lengths"].max())
    return {
        name: values[:, :longest] if name in _PADDED else values for name, values in batch.items()
    }
