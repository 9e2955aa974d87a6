"""Tic-tac-toe.

Shape legend: B positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Symmetry
from groundup.games.stones import StoneGame

__all__ = ["TicTacToe"]

_LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
_BITS = 1 << np.arange(9)
_COLUMNS = "abc"


class TicTacToe(StoneGame):
    """Three in a row on nine places."""

    name = "tic_tac_toe"
    moves = 9
    planes = (3, 3, 3)
    longest = 9
    places = np.arange(9)
    full = (1 << 9) - 1

    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        free: NDArray[np.bool_] = (states[:, 1:] & _BITS) == 0
        return free

    def laid(self, taken: NDArray[np.int64], moves: NDArray[np.int64]) -> NDArray[np.int64]:
        return taken | _BITS[moves]

    def won(self, stones: NDArray[np.int64]) -> NDArray[np.bool_]:
        found = np.zeros(stones.shape, np.bool_)
        for line in _LINES:
            bits = int(_BITS[list(line)].sum())
            found |= (stones & bits) == bits
        return found

    def keys(self, states: NDArray[Any]) -> list[Any]:
        return list((states[:, 1] << 9 | states[:, 0]).tolist())

    def move_name(self, state: NDArray[Any], move: int) -> str:
        return f"{_COLUMNS[move % 3]}{3 - move // 3}"

    def symmetries(self) -> Sequence[Symmetry]:
        square = np.arange(9).reshape(3, 3)
        # All eight: a position and its views are one to a player, and eight samples to a network.
        views = [np.rot90(side, turns) for side in (square, square.T) for turns in range(4)]
        return [Symmetry(view.ravel(), view.ravel()) for view in views]
