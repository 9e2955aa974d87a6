"""What a network thought of positions, remembered while its weights stay the same.

Shape legend: B positions, A moves, M positions remembered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Game

__all__ = ["Remembered"]

_GROWTH = 4096
# 300 MB of Connect Four; a match of long searches would otherwise fill the memory.
_MOST = 2_000_000


class Remembered:
    """Asks for each position once: the next move's search meets much of what this one's met, and
    games that are played at the same time have their beginnings in common.

    Args:
        game: The rules.
        evaluate: Thinks of positions, with weights that do not change.
    """

    def __init__(self, game: Game, evaluate: Evaluate) -> None:
        self._game = game
        self._evaluate = evaluate
        self._forget()

    def _forget(self) -> None:
        self._places: dict[Any, int] = {}
        self._logits = np.zeros((_GROWTH, self._game.moves), np.float32)
        self._values = np.zeros(_GROWTH, np.float32)

    def __call__(self, states: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits (B, A) and values (B,)."""
        # By whole batches: what is asked in one call must not be forgotten in its middle.
        if len(self._places) + len(states) > _MOST:
            self._forget()
        places = self._places
        known = len(places)
        # A key that is new gets the next place, also for its other rows in this batch.
        found = np.array([places.setdefault(key, len(places)) for key in self._game.keys(states)])
        if len(places) > known:
            self._reserve(len(places))
            new, rows = np.unique(found, return_index=True)
            rows = rows[new >= known]
            logits, values = self._evaluate(states[rows])
            self._logits[known : len(places)] = logits
            self._values[known : len(places)] = values
        return self._logits[found], self._values[found]

    def _reserve(self, count: int) -> None:
        size = len(self._values)
        if count <= size:
            return
        # Doubled: growing by a fixed step would copy everything again and again.
        more = max(count - size, size)
        self._logits = np.concatenate(
            [self._logits, np.zeros((more, self._game.moves), np.float32)]
        )
        self._values = np.concatenate([self._values, np.zeros(more, np.float32)])
