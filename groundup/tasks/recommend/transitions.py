"""What followed what: how often items came after one another in training, as scores of all items by
what a history ends with.

Shape legend: U users, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from groundup.processors.interactions import InteractionsProcessor

__all__ = ["MOST_ITEMS", "Transitions", "log_shares"]

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

MOST_ITEMS = 10_000
"""Matrices of all pairs of items are computed up to this many."""

_LATEST = 10  # items of a history that something follows
_DECAY = 0.8
# Of the log shares, chosen on items before the last of MovieLens-100k.
_WITHIN = 10
_BEFORE = 0.5
_DAMPING = 30.0
_FLOOR = 0.3  # of popularity, in shares of 1: what never followed is not impossible


class Transitions:
    """Shares (N + 1, N + 1) of what followed an item in training.

    Args:
        rows: Of each training user the numbers of their items, in order of time.
        items: N.
        within: How many items after one count as following it; the k-th counts 1 / sqrt(k).
        before: What an item before one counts, next to one after it: what is chosen in one session
            belongs together, in whatever order.
        damping: Added to how much followed an item: shares of rare items are small.
    """

    def __init__(
        self,
        rows: Sequence[Numbers],
        items: int,
        within: int,
        before: float = 0.0,
        damping: float = 10.0,
    ) -> None:
        found = np.zeros((items + 1, items + 1), np.float32)
        for further in range(1, within + 1):
            longer = [row for row in rows if len(row) > further]
            if not longer:
                break
            first = np.concatenate([row[:-further] for row in longer])
            second = np.concatenate([row[further:] for row in longer])
            # Not found[...] +=, which counts a pair that is there twice once.
            np.add.at(found, (first, second), further**-0.5)
        if before:
            found += before * found.T
        # Shares, shrunk where little followed.
        found /= found.sum(1, keepdims=True) + damping
        self.shares = found

    def follow(self, histories: Sequence[Numbers]) -> Floats:
        """Return (U, N + 1) the shares of what followed the last ten items of each history, added
        up, nearer ones counting more."""
        ends = np.zeros((len(histories), len(self.shares)), np.float32)
        for n, history in enumerate(histories):
            latest = history[::-1][:_LATEST]
            # An item may be there twice, where repeats are kept.
            np.add.at(ends[n], latest, (_DECAY ** np.arange(len(latest))).astype(np.float32))
        found: Floats = ends @ self.shares
        return found


def log_shares(histories: Sequence[Numbers], processor: InteractionsProcessor) -> Floats:
    """Return (U, N + 1) the logarithm of the share that each item has of what follows a history;
    of what is chosen at all, where nothing is known of what follows.

    Args:
        histories: Numbers of items, the latest last.
        processor: With the rows of training.
    """
    found = _transitions(processor).follow(histories)
    total = found.sum(1, keepdims=True)
    chosen = processor.popularity.astype(np.float32) + 0.5  # of what was never chosen, too
    usual = chosen / chosen.sum()
    share = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    shares: Floats = np.log((share + _FLOOR * usual) / (share.sum(1, keepdims=True) + _FLOOR))
    return shares


@lru_cache(maxsize=2)
def _transitions(processor: InteractionsProcessor) -> Transitions:
    # Once for a run: every validation asks for it.
    assert processor.rows is not None  # as the task has set them
    return Transitions(processor.rows, len(processor.items), _WITHIN, _BEFORE, _DAMPING)
