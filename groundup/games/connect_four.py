"""Connect Four.

Shape legend: B positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Game, Outcome, Symmetry

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


def _won(stones: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.zeros(stones.shape, np.bool_)
    for step in STEPS:
        pairs = stones & (stones >> step)
        found |= (pairs & (pairs >> (2 * step))) != 0
    return found


class ConnectFour(Game):
    """Four in a row; stones fall down seven columns of six places. A state holds two sets of places
    as bits: the stones of the player to move, and all."""

    name = "connect_four"
    moves = WIDTH
    planes = (3, HEIGHT, WIDTH)
    longest = WIDTH * HEIGHT

    def start(self, count: int) -> NDArray[Any]:
        return np.zeros((count, 2), np.int64)

    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        free: NDArray[np.bool_] = (states[:, 1:] & _TOP) == 0
        return free

    def play(self, states: NDArray[Any], moves: NDArray[np.int64]) -> NDArray[Any]:
        taken = states[:, 1]
        # A one added at a column's bottom is carried to its first empty place.
        return np.stack([taken ^ states[:, 0], taken | (taken + _FIRST[moves])], 1)

    # Shifts compare all places with their neighbours at once.
    def outcome(self, states: NDArray[Any]) -> Outcome:
        taken = states[:, 1]
        lost = _won(taken ^ states[:, 0])
        return Outcome(lost | (taken == _FULL), -lost.astype(np.float32))

    def player(self, states: NDArray[Any]) -> NDArray[np.int64]:
        turn: NDArray[np.int64] = np.bitwise_count(states[:, 1]).astype(np.int64) & 1
        return turn

    def encode(self, states: NDArray[Any]) -> NDArray[np.float32]:
        mine = states[:, :1]
        taken = states[:, 1:]
        # Empty places too: convolutions see zeros beyond the edge.
        stones = np.stack([mine, taken ^ mine, ~taken], 1)
        planes: NDArray[np.float32] = ((stones >> _PLACES) & 1).astype(np.float32)
        return planes.reshape(-1, *self.planes)

    def keys(self, states: NDArray[Any]) -> list[Any]:
        # What lies below a column's top is all stones: this sum tells both sets apart.
        return list((states[:, 0] + states[:, 1] + sum(BOTTOM)).tolist())

    def board(self, state: NDArray[Any]) -> list[str]:
        players = (".xo", ".ox")[int(self.player(state[None])[0])]
        mine, other, _ = self.encode(state[None])[0].astype(np.int64)
        return ["".join(players[place] for place in row) for row in mine + 2 * other]

    def move_name(self, state: NDArray[Any], move: int) -> str:
        return str(move + 1)

    def symmetries(self) -> Sequence[Symmetry]:
        places = np.arange(WIDTH * HEIGHT)
        # Left and right are alike; upside down stones would not fall.
        mirrored = places.reshape(HEIGHT, WIDTH)[:, ::-1].ravel()
        return (Symmetry(places, _COLUMNS), Symmetry(mirrored, _COLUMNS[::-1].copy()))
