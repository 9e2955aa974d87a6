"""Elo ratings of players by the games between them.

Shape legend: P players.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["elo_ratings"]

_PER_FACTOR = 400 / math.log(10)
_ROUNDS = 10_000


def elo_ratings(scores: NDArray[np.float64], games: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a rating of each player (P,), the first one's being 0: 400 more means ten wins for
    each loss.

    The likeliest under the model of Bradley and Terry, by the iteration of Hunter, 2004, "MM
    algorithms for generalized Bradley-Terry models", equation 3. Between those who met one draw is
    added, without which who never lost would be infinitely strong.

    Args:
        scores: (P, P) points of each against each: 1 a win, a half a draw.
        games: (P, P) how many games they played, symmetric.
    """
    met = games > 0
    scores = scores + 0.5 * met
    games = games + met
    strengths = np.ones(len(scores))
    for _ in range(_ROUNDS):
        sums = strengths[:, None] + strengths[None]
        after = scores.sum(1) / (games / sums).sum(1)
        # Only ratios are determined: without an anchor the strengths would drift.
        after /= after[0]
        done = np.allclose(after, strengths, rtol=1e-9)
        strengths = after
        if done:
            break
    return _PER_FACTOR * np.log(strengths)
