"""What recommends without a model: popularity, similar items, a linear autoencoder, and counts of
what follows what; and of ratings the biases of users and items.

Shape legend: U users, N items, R ratings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.tasks.recommend.transitions import MOST_ITEMS, Transitions

__all__ = ["Biases", "SimpleMethods"]

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
_USERS = 1024  # users whose rows are in memory at a time

_NEIGHBOURS = 100
_SHRINK = 10.0
_RIDGE = 500.0
_WITHIN = 5  # items after one that count as following it


class SimpleMethods:
    """Scores (U, N + 1) by the interactions of a training split. Settings are fixed; they were
    chosen on MovieLens-100k.

    - ``popularity``: how often an item was chosen.
    - ``item-kNN``: the cosines of an item with those of a history, added up; of each item only its
      100 nearest count, and the cosines of rare items are shrunk. Sarwar et al., 2001, "Item-based
      collaborative filtering recommendation algorithms".
    - ``EASE``: the closed form of Steck, 2019 (arXiv:1905.03375), equation 8, with a ridge of 500.
    - ``Markov counts``: how often an item came within five after one of the last ten of a history,
      nearer ones counting more.

    Args:
        rows: Of each training user the numbers of their items, in order of time.
        items: N.
    """

    def __init__(self, rows: Sequence[Numbers], items: int) -> None:
        self.rows = rows
        self.items = items
        self.counts = np.bincount(
            np.concatenate([*rows, np.zeros(0, np.int64)]), minlength=items + 1
        ).astype(np.float32)

    @property
    def left_out(self) -> str:
        """What is not computed, in words; empty where all is."""
        if self.items <= MOST_ITEMS:
            return ""
        return f"with more than {MOST_ITEMS:,} items only popularity is computed"

    def all(self) -> Iterator[tuple[str, Callable[[Sequence[Numbers]], Floats]]]:
        """Yield the name of each, and what scores all items for histories."""
        yield "popularity", self._popularity
        if self.left_out:
            return
        together = self._together()
        yield "item-kNN", _by_matrix(self._neighbours(together))
        yield "EASE", _by_matrix(_ease(together))
        yield "Markov counts", self._markov()

    def _popularity(self, histories: Sequence[Numbers]) -> Floats:
        return np.tile(self.counts, (len(histories), 1))

    def _together(self) -> NDArray[np.float64]:
        """Return (N + 1, N + 1) how many users have both of two items."""
        found = np.zeros((self.items + 1, self.items + 1))
        for begin in range(0, len(self.rows), _USERS):
            own = _indicators(self.rows[begin : begin + _USERS], self.items)
            found += own.T @ own
        return found

    def _neighbours(self, together: NDArray[np.float64]) -> Floats:
        norms = np.sqrt(np.diag(together))
        # Two rare items that one user has would be as near as can be.
        near = together / (norms[:, None] * norms[None] + _SHRINK)
        np.fill_diagonal(near, 0.0)
        kept = min(_NEIGHBOURS, self.items)
        cut = np.partition(near, -kept, axis=0)[-kept]
        return np.where(near >= cut[None], near, 0.0).astype(np.float32)

    def _markov(self) -> Callable[[Sequence[Numbers]], Floats]:
        transitions = Transitions(self.rows, self.items, _WITHIN)
        # Where nothing followed, the popular comes first.
        rest = 1e-6 * self.counts / max(float(self.counts.max()), 1.0)

        def scores(histories: Sequence[Numbers]) -> Floats:
            return transitions.follow(histories) + rest.astype(np.float32)

        return scores


def _indicators(rows: Sequence[Numbers], items: int) -> Floats:
    found = np.zeros((len(rows), items + 1), np.float32)
    for n, row in enumerate(rows):
        found[n, row] = 1.0
    return found


def _ease(together: NDArray[np.float64]) -> Floats:
    # An item must not predict itself: the diagonal is 0 by construction.
    inverse = np.linalg.inv(together + _RIDGE * np.eye(len(together)))
    found = inverse / -np.diag(inverse)
    np.fill_diagonal(found, 0.0)
    return found.astype(np.float32)


def _by_matrix(matrix: Floats) -> Callable[[Sequence[Numbers]], Floats]:
    return lambda histories: _indicators(histories, len(matrix) - 1) @ matrix


class Biases:
    """Ratings as the mean and what a user and an item differ from it: by ridge regression in turns.

    Source:
        Koren, 2010, "Factor in the neighbors: scalable and accurate collaborative filtering",
        section 2.1.

    Args:
        users: (R,) numbers of users.
        items: (R,) numbers of items.
        ratings: (R,).
        damping: Added to how many ratings there are.
        turns: How often both are computed.
    """

    def __init__(
        self,
        users: Numbers,
        items: Numbers,
        ratings: NDArray[np.float64],
        damping: float = 5.0,
        turns: int = 10,
    ) -> None:
        self.mean = float(ratings.mean())
        # One more than there are, which stay 0: of an unknown user or item nothing is known.
        self.user = np.zeros(int(users.max()) + 1)
        self.item = np.zeros(int(items.max()) + 1)
        for _ in range(turns):
            rest = ratings - self.mean - self.item[items]
            self.user = _shrunk(users, rest, len(self.user), damping)
            rest = ratings - self.mean - self.user[users]
            self.item = _shrunk(items, rest, len(self.item), damping)

    def predict(self, users: Numbers, items: Numbers) -> NDArray[np.float64]:
        """Return (R,) ratings; of those who are unknown the others' mean."""
        return self.mean + _take(self.user, users) + _take(self.item, items)


def _shrunk(
    numbers: Numbers, rest: NDArray[np.float64], size: int, damping: float
) -> NDArray[np.float64]:
    sums = np.bincount(numbers, rest, minlength=size)
    found: NDArray[np.float64] = sums / (np.bincount(numbers, minlength=size) + damping)
    found[0] = 0.0
    return found


def _take(values: NDArray[np.float64], numbers: Numbers) -> NDArray[np.float64]:
    known = numbers < len(values)
    found: NDArray[np.float64] = np.where(known, values[np.where(known, numbers, 0)], 0.0)
    return found
