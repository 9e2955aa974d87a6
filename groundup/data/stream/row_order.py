"""Which row each sample of a run is: functions of the sample's number, never a state.

Legend: N rows, B samples of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding
from groundup.core.settings import setting
from groundup.core.values import Split
from groundup.data.stream.permutation import permute

__all__ = ["KeyedOrder", "LengthOrder", "OwnOrder", "RowOrder", "similar_lengths_setting"]

Rows = NDArray[np.int64]
# places of the permutation that are computed at once: one by one they take longer than a small
# model
_BLOCK = 4096
# Batches whose rows are sorted together: the more, the less padding, and the more alike the batches
# of all epochs. Of 32,000 paragraphs of help in English and German, 64 a batch, 79% would be
# padding in any order; 7.4% are with 400, and 15% with 100.
_POOL = 400
# Batches that are near in one length, and are then sorted by the other; 9.2% with 4, 7.9% with 32.
_GROUP = 8


def similar_lengths_setting(kind: str, default: bool = False) -> Any:
    """Return the setting ``similar_lengths`` of a source.

    Args:
        kind: What its batches are of, such as ``pairs``.
        default: Its value where a recipe is silent.
    """
    # Pairs of texts by length teach less, and take about as long: within a step those of like
    # lengths are computed together. Of sounds neither is so.
    gain = "which takes less time; false: of any" if default else "less is learned from as many"
    mark = "," if default else ":"
    return setting(default, f"batches are of {kind} of similar lengths{mark} {gain}")


class RowOrder(ABC):
    """The rows of the samples of a run, each epoch all of them once."""

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def rows(self, first: int, count: int) -> Rows:
        """Return the rows of the samples ``first + [0, count)`` of the run."""


class OwnOrder(RowOrder):
    """The rows as they are, once."""

    def rows(self, first: int, count: int) -> Rows:
        """Return the rows; fewer, where they end."""
        return np.arange(first, min(first + count, self.size))


class KeyedOrder(RowOrder):
    """Every epoch another permutation, keyed by the seed.

    Args:
        size: N.
        seed: The run's.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self._seed = seed
        self._block: tuple[int, int] = (-1, -1)
        self._rows = np.empty(0, np.int64)

    def rows(self, first: int, count: int) -> Rows:
        """Return the rows of the samples ``first + [0, count)``."""
        parts = []
        while count > 0:
            epoch, place = divmod(first, self.size)
            block, offset = divmod(place, _BLOCK)
            part = self._rows_in(epoch, block)[offset : offset + count]
            parts.append(part)
            first += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def _rows_in(self, epoch: int, block: int) -> Rows:
        """Return the rows at places ``block * _BLOCK + [0, _BLOCK)`` of an epoch's permutation; the
        last are kept."""
        # rows are asked for in order: the block of before is nearly always the one
        if self._block != (epoch, block):
            places = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.size))
            self._rows = permute(places, self.size, seeding.key(self._seed, "rows", epoch))
            self._block = (epoch, block)
        return self._rows


class LengthOrder(RowOrder):
    """Batches of rows of similar lengths, so that little of a batch is padding.

    Every epoch its keyed permutation is cut into pools, a pool is sorted by length and cut into
    batches, and the batches of all pools are permuted again. Where rows have two lengths, as of a
    text and its translation, a pool is sorted by the larger one, and every eight batches of it by
    the other. So a batch depends on the lengths of
    all rows and on ``batch_size``, but not on how a batch is cut into micro-batches. Where an epoch
    ends within a batch, that batch is of short rows.

    Args:
        lengths: (N, D) of each row: of one text, or of several.
        batch_size: B.
        split: Held-out rows are in one such order, the same whatever the seed, once.
        seed: The run's.
    """

    def __init__(self, lengths: Rows, batch_size: int, split: Split, seed: int) -> None:
        super().__init__(len(lengths))
        # The largest one first: most of the padding is there.
        self._lengths = lengths[:, np.argsort(-lengths.sum(0), kind="stable")]
        self._batch_size = batch_size
        self._ends = split != "train"
        # Runs with other seeds are validated on the same batches.
        self._seed = 0 if self._ends else seed
        self._epoch = -1
        self._planned = np.empty(0, np.int64)

    def rows(self, first: int, count: int) -> Rows:
        """Return the rows of the samples ``first + [0, count)``; fewer, where held-out rows end."""
        parts = [np.empty(0, np.int64)]
        if self._ends:
            count = min(count, self.size - first)
        while count > 0:
            epoch, place = divmod(first, self.size)
            part = self._plan(epoch)[place : place + count]
            parts.append(part)
            first += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def _plan(self, epoch: int) -> Rows:
        """Return (N,) the rows of an epoch in order; those of the last one asked for are kept."""
        if self._epoch == epoch:
            return self._planned
        size = self._batch_size
        keyed = permute(
            np.arange(self.size), self.size, seeding.key(self._seed, "rows by length", epoch)
        )
        # Batches are counted from the start of the run: the last one of the epoch before is filled
        # up, and the last one of this epoch is left to be filled.
        begun = min(-epoch * self.size % size, self.size)
        left = (self.size - begun) % size
        pools = [
            self._sort(pool, 0)
            for pool in np.split(keyed, range(_POOL * size, self.size - _POOL * size, _POOL * size))
        ]
        # The shortest rows of a pool, so that these two batches are of similar lengths too.
        ends = pools[-1][: begun + left]
        pools[-1] = pools[-1][begun + left :]
        if self._lengths.shape[1] > 1:
            groups = [
                group
                for pool in pools
                for group in np.split(pool, range(_GROUP * size, len(pool), _GROUP * size))
            ]
            pools = [self._sort(group, 1) for group in groups]
        batches = np.concatenate(pools).reshape(-1, size)
        count = len(batches)
        if count:
            order = seeding.key(self._seed, "batches by length", epoch)
            batches = batches[permute(np.arange(count), count, order)]
        self._planned = np.concatenate((ends[:begun], batches.ravel(), ends[begun:]))
        self._epoch = epoch
        return self._planned

    def _sort(self, rows: Rows, which: int) -> Rows:
        return rows[np.argsort(self._lengths[rows, which], kind="stable")]
