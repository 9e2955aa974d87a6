"""Games in which two players lay stones that stay where they are, on sets of places as bits.

Shape legend: B positions, P places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Game, Outcome

__all__ = ["StoneGame"]


class StoneGame(Game, ABC):
    """A game whose state holds two sets of places as bits, (B, 2): the stones of the player to
    move, and all.

    Attributes:
        places: (P,) the bit of each place, as a board is read: from the upper left one, row by row.
        full: The bits of all places.
    """

    places: ClassVar[NDArray[np.int64]]
    full: ClassVar[int]

    @abstractmethod
    def laid(self, taken: NDArray[np.int64], moves: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (B,) all stones after a move, from those before it."""

    @abstractmethod
    def won(self, stones: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (B,) whether a player's stones have won."""

    def start(self, count: int) -> NDArray[Any]:
        return np.zeros((count, 2), np.int64)

    def play(self, states: NDArray[Any], moves: NDArray[np.int64]) -> NDArray[Any]:
        taken = states[:, 1]
        return np.stack([taken ^ states[:, 0], self.laid(taken, moves)], 1)

    # Bits, so that a line is one comparison for all games at once.
    def outcome(self, states: NDArray[Any]) -> Outcome:
        taken = states[:, 1]
        # Only who moved last can have won.
        lost = self.won(taken ^ states[:, 0])
        return Outcome(lost | (taken == self.full), -lost.astype(np.float32))

    def player(self, states: NDArray[Any]) -> NDArray[np.int64]:
        turn: NDArray[np.int64] = np.bitwise_count(states[:, 1]).astype(np.int64) & 1
        return turn

    def encode(self, states: NDArray[Any]) -> NDArray[np.float32]:
        mine = states[:, :1]
        taken = states[:, 1:]
        # Empty places too: convolutions see zeros beyond the edge.
        stones = np.stack([mine, taken ^ mine, ~taken], 1)
        planes: NDArray[np.float32] = ((stones >> self.places) & 1).astype(np.float32)
        return planes.reshape(-1, *self.planes)

    def board(self, state: NDArray[Any]) -> list[str]:
        players = (".xo", ".ox")[int(self.player(state[None])[0])]
        mine, other, _ = self.encode(state[None])[0].astype(np.int64)
        return ["".join(players[place] for place in row) for row in mine + 2 * other]
