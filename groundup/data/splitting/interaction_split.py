"""Which interactions are held out: the last of each user, the latest of all, some users, or any.

Legend: R interactions, sorted by user and then by time.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding

__all__ = ["HELD_OUT", "Held", "hold_out"]

Held = Literal["last", "time", "users", "random"]
HELD_OUT = {"train": 0, "validation": 1, "test": 2}
"""The number of each split in what ``hold_out`` returns."""

Numbers = NDArray[np.int64]
_FEWEST = 3  # one to learn from, one to choose by, one to test with


def hold_out(
    how: Held,
    users: Numbers,
    times: NDArray[np.float64] | None,
    shares: tuple[float, float],
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Numbers:
    """Return the split (R,) of each interaction.

    Args:
        how: ``last``: of each user with three or more the last one is test, the one before it
            validation. ``time``: the latest share of all; interactions of one second are on one
            side, the later. ``users``: all of a share of the users. ``random``: any.
        users: (R,) sorted.
        times: (R,) in seconds; needed for ``time``.
        shares: Held out for validation, and for test.
        seed: Another one holds out others.
        fold: The fold that is test, and how many there are, in place of a share.
    """
    found = np.zeros(len(users), np.int64)
    if how == "last":
        _, begins, counts = np.unique(users, return_index=True, return_counts=True)
        # Who has fewer is trained on, with all they did.
        ends = (begins + counts)[counts >= _FEWEST]
        found[ends - 1] = HELD_OUT["test"]
        found[ends - 2] = HELD_OUT["validation"]
        return found
    if how == "time":
        assert times is not None
        ordered = np.sort(times)
        for split, share in (("validation", shares[0] + shares[1]), ("test", shares[1])):
            # Whatever happened in the second of the cut is later: no row decides it by its place.
            cut = ordered[min(round(len(times) * (1 - share)), len(times) - 1)]
            if share:
                found[times >= cut] = HELD_OUT[split]
        return found
    numbers = np.arange(len(users))
    if how == "users":
        numbers = np.unique(users)
    drawn = seeding.scramble(numbers, seeding.key(seed, f"hold out {how}"))
    order = np.argsort(drawn, kind="stable")
    of = np.zeros(len(numbers), np.int64)
    tested = order[: round(len(order) * shares[1])]
    if fold is not None:
        tested = order[fold[0] :: fold[1]]
    of[tested] = HELD_OUT["test"]
    # What is test stays test, whatever the share of validation.
    rest = order[of[order] == 0]
    of[rest[: round(len(order) * shares[0])]] = HELD_OUT["validation"]
    return of[np.searchsorted(numbers, users)] if how == "users" else of
