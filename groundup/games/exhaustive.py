"""Small games solved whole: what every position is worth when both play perfectly.

Shape legend: B positions, K numbers of a state, A moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Game
from groundup.core.errors import DataError

__all__ = ["Solved", "solve", "worst_results"]

_MOST = 200_000  # positions of a game that is solved whole
_TRIED = 4  # times as many moves lead to the positions of one layer


class Solved:
    """All positions that can be reached, by the number of moves before them.

    Attributes:
        layers: Positions (B, K) of each number of moves.
        values: Of each, what its player to move wins (B,).
    """

    def __init__(
        self, game: Game, layers: list[NDArray[Any]], values: list[NDArray[np.float32]]
    ) -> None:
        self.game = game
        self.layers = layers
        self.values = values
        self._known = {
            key: float(value)
            for states, found in zip(layers, values, strict=True)
            for key, value in zip(game.keys(states), found, strict=True)
        }

    def value(self, states: NDArray[Any]) -> NDArray[np.float32]:
        """Return what the players to move of positions (B, K) win."""
        return np.array([self._known[key] for key in self.game.keys(states)], np.float32)

    def gains(self, states: NDArray[Any]) -> NDArray[np.float32]:
        """Return what each move of positions (B, K) that are not over leads to (B, A), for the
        player who moves; -inf where illegal."""
        legal = self.game.legal(states)
        rows, moves = np.nonzero(legal)
        after = self.game.play(states[rows], moves)
        same = self.game.player(states)[rows] == self.game.player(after)
        values = self.value(after)
        found = np.full(legal.shape, -np.inf, np.float32)
        found[rows, moves] = np.where(same, values, -values)
        return found

    def undecided(self) -> NDArray[Any]:
        """Return all positions in which there is a move to choose."""
        return np.concatenate([each[~self.game.outcome(each).over] for each in self.layers])


def solve(game: Game, most: int = _MOST) -> Solved:
    """Return what every position is worth that can be reached.

    Raises:
        DataError: If there are too many.
    """
    layers = [game.start(1)]
    count = 1
    while True:
        states = layers[-1][~game.outcome(layers[-1]).over]
        if not len(states):
            break
        rows, moves = np.nonzero(game.legal(states))
        if count + len(rows) > _TRIED * most:
            raise _too_many(game, most)
        after = game.play(states[rows], moves)
        # Many orders of moves lead to one position, which is looked at once.
        unique = list({key: place for place, key in enumerate(game.keys(after))}.values())
        layers.append(after[unique])
        count += len(unique)
        if count > most:
            raise _too_many(game, most)
    values: list[NDArray[np.float32]] = []
    # From the end: what is worth most to the mover is known once all that follows is.
    for states in reversed(layers):
        outcome = game.outcome(states)
        found = outcome.value.copy()
        open_ones = np.flatnonzero(~outcome.over)
        if len(open_ones):
            later = Solved(game, layers[len(layers) - len(values) :][:1], values[:1])
            found[open_ones] = later.gains(states[open_ones]).max(1)
        values.insert(0, found)
    return Solved(game, layers, values)


def _too_many(game: Game, most: int) -> DataError:
    return DataError(
        game.name,
        f"has more than {most:,} positions, too many to look at all of them",
        "Compare with other players instead",
    )


def worst_results(
    solved: Solved, choose: Callable[[NDArray[Any]], NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return what a player reaches against every way to play against it.

    Args:
        solved: The game.
        choose: Its moves (B,) in positions (B, K).

    Returns:
        What it wins at least (N,) and what perfect play wins (N,), from each position in which it
        is to move, and what it wins at least of games that the other begins.
    """
    game = solved.game
    to_move: dict[Any, float] = {}
    waits: dict[Any, float] = {}
    found = []
    perfect = []
    for states, values in zip(reversed(solved.layers), reversed(solved.values), strict=True):
        keys = game.keys(states)
        over = game.outcome(states).over
        for row in np.flatnonzero(over):
            to_move[keys[row]] = float(values[row])
            waits[keys[row]] = -float(values[row])
        rows = np.flatnonzero(~over)
        if not len(rows):
            continue
        left = states[rows]
        # Against every reply: a player that is only tried against good ones hides its holes.
        own = game.play(left, choose(left))
        same = game.player(own) == game.player(left)
        for row, key, again in zip(rows, game.keys(own), same, strict=True):
            to_move[keys[row]] = (to_move if again else waits)[key]
            found.append(to_move[keys[row]])
        perfect += values[rows].tolist()
        places, moves = np.nonzero(game.legal(left))
        after = game.play(left[places], moves)
        same = game.player(after) == game.player(left[places])
        for place, key, again in zip(places, game.keys(after), same, strict=True):
            result = (waits if again else to_move)[key]
            known = waits.get(keys[rows[place]], 1.0)
            waits[keys[rows[place]]] = min(known, result)
    first = game.keys(solved.layers[0])[0]
    return np.array(found, np.float32), np.array(perfect, np.float32), waits[first]
