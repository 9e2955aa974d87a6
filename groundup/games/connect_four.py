"""Connect Four.

Shape legend: B positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Symmetry
from groundup.games.stones import StoneGame

__all__ = ["BOTTOM", "HEIGHT", "STEPS", "WIDTH", "ConnectFour"]

WIDTH = 7
HEIGHT = 6
# Bits of a column with one above it that stays empty, so that no line runs over an edge.
_TALL = HEIGHT + 1
STEPS = (1, _TALL, _TALL - 1, _TALL + 1)
"""Distances between neighbours in bits: upwards, to the right, and along both diagonals."""
_COLUMNS = np.arange(WIDTH)
BOTTOM = tuple(1 << (_TALL * column) for column in range(WIDTH))
"""The lowest place of each column, as a bit."""
_FIRST = np.array(BOTTOM, np.int64)
_TOP = _FIRST << (HEIGHT - 1)
_FULL = int(sum(first * ((1 << HEIGHT) - 1) for first in BOTTOM))
# Bits as a board is read: from the upper left place, row by row.
_PLACES = np.array([_TALL * c + r for r in reversed(range(HEIGHT)) for c in range(WIDTH)])


class ConnectFour(StoneGame):
    """Four in a row; stones fall down seven columns of six places."""

    name = "connect_four"
    moves = WIDTH
    planes = (3, HEIGHT, WIDTH)
    longest = WIDTH * HEIGHT
    places = _PLACES
    full = _FULL

    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        free: NDArray[np.bool_] = (states[:, 1:] & _TOP) == 0
        return free

    def laid(self, taken: NDArray[np.int64], moves: NDArray[np.int64]) -> NDArray[np.int64]:
        # A one added at a column's bottom is carried to its first empty place.
        return taken | (taken + _FIRST[moves])

    # Shifts compare all places with their neighbours at once.
    def won(self, stones: NDArray[np.int64]) -> NDArray[np.bool_]:
        found = np.zeros(stones.shape, np.bool_)
        for step in STEPS:
            pairs = stones & (stones >> step)
            found |= (pairs & (pairs >> (2 * step))) != 0
        return found

    def keys(self, states: NDArray[Any]) -> list[Any]:
        # What lies below a column's top is all stones: this sum tells both sets apart.
        return list((states[:, 0] + states[:, 1] + sum(BOTTOM)).tolist())

    def move_name(self, state: NDArray[Any], move: int) -> str:
        return str(move + 1)

    def symmetries(self) -> Sequence[Symmetry]:
        places = np.arange(WIDTH * HEIGHT)
        # Left and right are alike; upside down stones would not fall.
        mirrored = places.reshape(HEIGHT, WIDTH)[:, ::-1].ravel()
        return (Symmetry(places, _COLUMNS), Symmetry(mirrored, _COLUMNS[::-1].copy()))
