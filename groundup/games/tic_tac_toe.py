"""Tic-tac-toe.

Shape legend: B positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Game, Outcome, Symmetry

__all__ = ["TicTacToe"]

_LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
_FULL = (1 << 9) - 1
_BITS = 1 << np.arange(9)
_COLUMNS = "abc"


def _won(stones: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.zeros(stones.shape, np.bool_)
    for line in _LINES:
        bits = int(_BITS[list(line)].sum())
        found |= (stones & bits) == bits
    return found


class TicTacToe(Game):
    """Three in a row on nine places. A state holds two sets of places as bits: the stones of the
    player to move, and all."""

    name = "tic_tac_toe"
    moves = 9
    planes = (3, 3, 3)
    longest = 9

    def start(self, count: int) -> NDArray[Any]:
        return np.zeros((count, 2), np.int64)

    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        free: NDArray[np.bool_] = (states[:, 1:] & _BITS) == 0
        return free

    def play(self, states: NDArray[Any], moves: NDArray[np.int64]) -> NDArray[Any]:
        taken = states[:, 1]
        return np.stack([taken ^ states[:, 0], taken | _BITS[moves]], 1)

    # Bits, so that a line is one comparison for all games at once.
    def outcome(self, states: NDArray[Any]) -> Outcome:
        taken = states[:, 1]
        # Only who moved last can have three in a row.
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
        planes: NDArray[np.float32] = ((stones & _BITS) > 0).astype(np.float32)
        return planes.reshape(-1, *self.planes)

    def keys(self, states: NDArray[Any]) -> list[Any]:
        return list((states[:, 1] << 9 | states[:, 0]).tolist())

    def board(self, state: NDArray[Any]) -> list[str]:
        players = (".xo", ".ox")[int(self.player(state[None])[0])]
        mine, other, _ = self.encode(state[None])[0].astype(np.int64)
        return ["".join(players[place] for place in row) for row in mine + 2 * other]

    def move_name(self, state: NDArray[Any], move: int) -> str:
        return f"{_COLUMNS[move % 3]}{3 - move // 3}"

    def symmetries(self) -> Sequence[Symmetry]:
        square = np.arange(9).reshape(3, 3)
        # Four turns of the board and of its mirror image: eight in all.
        views = [np.rot90(side, turns) for side in (square, square.T) for turns in range(4)]
        return [Symmetry(view.ravel(), view.ravel()) for view in views]
