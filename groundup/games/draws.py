"""What chance decides in a search, as a function of the seed, the game and the move alone.

Shape legend: G games, A moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding

__all__ = ["PLACES", "dirichlet", "draw_moves", "gumbel"]

PLACES = 1 << 16
"""A turn is numbered by its game times this, plus the move."""


def gumbel(seed: int, turns: NDArray[np.int64], moves: int) -> NDArray[np.float32]:
    """Return Gumbel noise (G, A) for turns (G,), as ``PLACES`` numbers them."""
    # Keyed by the turn: a game draws the same whichever games are played with it.
    drawn = seeding.uniforms(seed, "gumbel", turns, moves).T
    # Away from 0, whose logarithm is none.
    return -np.log(-np.log(drawn + 2.0**-60)).astype(np.float32)


def dirichlet(
    seed: int, turns: NDArray[np.int64], legal: NDArray[np.bool_], alpha: float
) -> NDArray[np.float32]:
    """Return noise (G, A) that sums to 1 over the legal moves of each turn."""
    found = np.zeros(legal.shape, np.float32)
    for row, turn in enumerate(turns.tolist()):
        random = np.random.default_rng(seeding.key(seed, "dirichlet", turn))
        found[row, legal[row]] = random.dirichlet(np.full(legal[row].sum(), alpha))
    return found


def draw_moves(
    seed: int, turns: NDArray[np.int64], shares: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return a move (G,) of each turn, drawn by non-negative shares (G, A)."""
    # In float64: sums of many small shares would otherwise miss the last move.
    sums = shares.astype(np.float64).cumsum(1)
    drawn = seeding.uniforms(seed, "move", turns)[0] * sums[:, -1]
    found: NDArray[np.int64] = (sums <= drawn[:, None]).sum(1).clip(max=shares.shape[1] - 1)
    return found
