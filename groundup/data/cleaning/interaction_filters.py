"""Which interactions are left out before they are split, each counted: repeated ones, and those of
users and items with few.

Legend: R interactions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Repeats", "find_core", "find_repeats"]

Repeats = Literal["keep", "first", "last", "stop"]
Numbers = NDArray[np.int64]


def find_repeats(users: Numbers, items: Numbers, repeats: Repeats) -> Numbers:
    """Return which interactions (R,), in order of time, repeat a pair of user and item and are not
    kept: with ``last`` all but the last of each, else all but the first."""
    pairs = np.stack([users, items], 1)
    # The first of each is found: backwards that is the last.
    if repeats == "last":
        pairs = pairs[::-1]
    # One of each pair stays, and the others are repeats of it.
    _, first = np.unique(pairs, axis=0, return_index=True)
    again = np.setdiff1d(np.arange(len(users)), first)
    if repeats == "last":
        again = len(users) - 1 - again
    return np.sort(again).astype(np.int64)


def find_core(
    users: Numbers, items: Numbers, min_user: int, min_item: int
) -> tuple[NDArray[np.bool_], int]:
    """Return which interactions (R,) are kept, and in how many passes that was found.

    Users and items with fewer interactions are left out again and again until none is left with
    fewer: the k-core of the bipartite graph.

    Source:
        Seidman, 1983, "Network structure and minimum degree", Social Networks 5 (3).
    """
    kept = np.ones(len(users), dtype=np.bool_)
    passes = 0
    while True:
        passes += 1
        before = int(kept.sum())
        # Both at once: the core is the same in whatever order they are taken.
        of_user = np.bincount(users[kept], minlength=int(users.max(initial=-1)) + 1)
        of_item = np.bincount(items[kept], minlength=int(items.max(initial=-1)) + 1)
        kept &= (of_user[users] >= min_user) & (of_item[items] >= min_item)
        if int(kept.sum()) == before:
            return kept, passes
