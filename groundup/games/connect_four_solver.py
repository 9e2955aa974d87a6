"""Perfect play of Connect Four where a board is more than half full."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundup.games.connect_four import BOTTOM, HEIGHT, STEPS, WIDTH

__all__ = ["LEAST_STONES", "solve_connect_four"]

LEAST_STONES = 26
"""Boards with fewer stones take too long."""
_ORDER = (3, 2, 4, 1, 5, 0, 6)  # most lines go through the middle
_COLUMNS = tuple(first * ((1 << HEIGHT) - 1) for first in BOTTOM)
_FULL = sum(_COLUMNS)
_BOTTOMS = sum(BOTTOM)


def solve_connect_four(states: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what each move of positions (B, 2) leads to (B, 7), for the player who moves: 1, 0 or
    -1 when both play perfectly on, and -inf where illegal.

    Alpha-beta search over bits with a table of positions seen, moves that give the other an
    immediate win left out.

    Source:
        Pons, 2015, "Solving Connect 4: how to build a perfect AI", parts 4 to 7; Tromp, "John's
        Connect Four playground", for the bits.
    """
    # Shared by all positions: games that are nearly over have much in common.
    known: dict[int, tuple[int, int]] = {}
    found = np.full((len(states), WIDTH), -np.inf, np.float32)
    for row, (mine, taken) in enumerate(states.tolist()):
        for column, bottom in enumerate(BOTTOM):
            stone = (taken + bottom) & _COLUMNS[column]
            if not stone:
                continue
            if _four(mine | stone):
                found[row, column] = 1
            elif taken | stone == _FULL:
                found[row, column] = 0
            else:
                found[row, column] = -_search(taken ^ mine, taken | stone, -1, 1, known)
    return found


def _four(stones: int) -> bool:
    for step in STEPS:
        pairs = stones & (stones >> step)
        if pairs & (pairs >> (2 * step)):
            return True
    return False


def _threats(stones: int, taken: int) -> int:
    """Return the empty places that would complete four of some stones."""
    # Upwards there is no gap to fill: stones lie on each other.
    found = (stones << 1) & (stones << 2) & (stones << 3)
    for step in STEPS[1:]:
        left = (stones << step) & (stones << (2 * step))
        found |= left & (stones << (3 * step))
        found |= left & (stones >> step)
        right = (stones >> step) & (stones >> (2 * step))
        found |= right & (stones << step)
        found |= right & (stones >> (3 * step))
    return found & (_FULL ^ taken)


def _search(mine: int, taken: int, low: int, high: int, known: dict[int, tuple[int, int]]) -> int:
    """Return what the player to move wins, exact between the bounds ``low`` and ``high``."""
    if taken == _FULL:
        return 0
    free = (taken + _BOTTOMS) & _FULL
    if _threats(mine, taken) & free:
        return 1
    other = taken ^ mine
    dangers = _threats(other, taken)
    forced = dangers & free
    if forced:
        # Two places to stop at once are one too many.
        if forced & (forced - 1):
            return -1
        free = forced
    # Never below a place where the other would then win.
    free &= ~(dangers >> 1)
    if not free:
        return -1
    key = mine + taken + _BOTTOMS
    # Bounds instead of values: a search within a window proves no more.
    at_least, at_most = known.get(key, (-1, 1))
    low = max(low, at_least)
    high = min(high, at_most)
    if low >= high:
        return low
    best = -1
    alpha = low
    for column in _ORDER:
        stone = free & _COLUMNS[column]
        if stone:
            best = max(best, -_search(other, taken | stone, -high, -alpha, known))
            alpha = max(alpha, best)
            if best >= high:
                break
    # Outside of the bounds a value is only known to be beyond them.
    lower = best if best > low else at_least
    upper = best if best < high else at_most
    known[key] = (max(at_least, lower), min(at_most, upper))
    return best
