"""Who plays: a network that searches, rollouts, chance, perfect play; and matches between them.

Shape legend: G games, K numbers of a state, A moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Found, Game, Player
from groundup.core import seeding
from groundup.games import draws
from groundup.games.gumbel import search_gumbel
from groundup.games.puct import search_puct
from groundup.games.rollouts import search_rollouts
from groundup.games.tree import masked, softmax

__all__ = ["Match", "RandomPlayer", "Rollouts", "Searcher", "play_match"]


@dataclass(frozen=True)
class Searcher:
    """A network with a search, or alone with 0 simulations. It plays what it holds for best."""

    game: Game
    evaluate: Evaluate
    simulations: int
    algorithm: str = "gumbel"
    value_scale: float = 1.0
    exploration: float = 1.5

    def __call__(self, states: NDArray[Any], turns: NDArray[np.int64]) -> Found:
        if not self.simulations:
            logits, values = self.evaluate(states)
            policy = softmax(masked(logits, self.game.legal(states)))
            none = np.zeros_like(policy)
            return Found(policy.argmax(1), policy, values, none, none, policy)
        if self.algorithm == "puct":
            return search_puct(
                self.game,
                states,
                self.evaluate,
                simulations=self.simulations,
                exploration=self.exploration,
            )
        return search_gumbel(
            self.game,
            states,
            self.evaluate,
            simulations=self.simulations,
            value_scale=self.value_scale,
        )


@dataclass(frozen=True)
class Rollouts:
    """Monte Carlo tree search with so many random games for each move."""

    game: Game
    playouts: int
    seed: int = 0

    def __call__(self, states: NDArray[Any], turns: NDArray[np.int64]) -> Found:
        # Other random games in every turn: the same would be wrong in the same way.
        seed = seeding.key(self.seed, "rollouts of a turn", int(turns[0]))
        return search_rollouts(self.game, states, playouts=self.playouts, seed=seed)


@dataclass(frozen=True)
class RandomPlayer:
    """Every legal move alike."""

    game: Game
    seed: int = 0

    def __call__(self, states: NDArray[Any], turns: NDArray[np.int64]) -> Found:
        legal = self.game.legal(states)
        policy = (legal / legal.sum(1, keepdims=True)).astype(np.float32)
        none = np.zeros_like(policy)
        moves = draws.draw_moves(self.seed, turns, policy)
        return Found(moves, policy, none[:, 0], none, none, policy)


class Match(NamedTuple):
    """Games of two players; the first one began in the games with even numbers.

    Attributes:
        results: (G,) what the first one won: 1, -1, or 0 for a draw.
        moves: Of each game.
    """

    results: NDArray[np.float32]
    moves: list[list[int]]

    @property
    def score(self) -> float:
        """The first one's share of wins, a draw counted as half a win."""
        return float((self.results.mean() + 1) / 2)

    def count(self, result: int, *, began: bool | None = None) -> int:
        """Return how many games ended so, of all or of those that the first player ``began``."""
        chosen = {None: slice(None), True: slice(0, None, 2), False: slice(1, None, 2)}[began]
        return int((np.sign(self.results[chosen]) == result).sum())


def play_match(
    game: Game, first: Player, second: Player, games: int, *, openings: int = 0, seed: int = 0
) -> Match:
    """Return games of two players, all played at the same time, who begin in turn.

    Args:
        game: The rules.
        first: One player.
        second: The other.
        games: How many.
        openings: So many moves are drawn before the players take over, the same for two games each,
            so that both players get both sides of an opening; players without chance would
            otherwise play one game again and again.
        seed: Decides the openings and, with the number of game and move, what the players draw.
    """
    states = game.start(games)
    moves: list[list[int]] = [[] for _ in range(games)]
    results = np.zeros(games, np.float32)
    # Games that are over leave the batch; their numbers stay.
    left = np.arange(games)
    players = (first, second)
    for turn in range(game.longest + 1):
        outcome = game.outcome(states[left])
        ended = left[outcome.over]
        # Gains are those of who would be to move; whose they are depends on who began.
        firsts = game.player(states[ended]) == ended % 2
        results[ended] = np.where(firsts, outcome.value[outcome.over], -outcome.value[outcome.over])
        left = left[~outcome.over]
        if not len(left):
            break
        to_move = (game.player(states[left]) + left) % 2
        # Nobody is asked: two games that begin alike are drawn alike.
        if turn < openings:
            to_move = np.full(len(left), 2)
        for who in np.unique(to_move).tolist():
            chosen = left[to_move == who]
            turns = chosen * draws.PLACES + turn
            if who == 2:
                found = RandomPlayer(game, seed)(states[chosen], chosen // 2 * draws.PLACES + turn)
            else:
                found = players[who](states[chosen], turns)
            states[chosen] = game.play(states[chosen], found.moves)
            for number, move in zip(chosen.tolist(), found.moves.tolist(), strict=True):
                moves[number].append(move)
    return Match(results, moves)
