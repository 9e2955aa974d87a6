"""Search without a network: positions are worth what games of random moves end with.

Shape legend: B positions, A moves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Found, Game
from groundup.core import seeding
from groundup.games.tree import Tree

__all__ = ["play_out", "search_rollouts"]


def play_out(game: Game, states: NDArray[Any], random: np.random.Generator) -> NDArray[np.float32]:
    """Return what the players to move win (B,) when both play random moves to the end."""
    found = np.zeros(len(states), np.float32)
    began = game.player(states)
    left = np.arange(len(states))
    while len(left):
        over, values = game.outcome(states)
        if over.any():
            done = left[over]
            same = game.player(states[over]) == began[done]
            found[done] = np.where(same, values[over], -values[over])
            states = states[~over]
            left = left[~over]
            if not len(left):
                break
        # The largest of equal draws over the legal moves: one of them, all alike.
        drawn = random.random((len(states), game.moves), np.float32)
        moves = np.where(game.legal(states), drawn, -1).argmax(1)
        states = game.play(states, moves)
    return found


def search_rollouts(
    game: Game,
    states: NDArray[Any],
    *,
    playouts: int,
    exploration: float = 1.4142135,
    seed: int = 0,
) -> Found:
    """Return what Monte Carlo tree search thinks of positions (G, K) that are not over: UCB1, and a
    random game from every leaf.

    Source:
        Kocsis and Szepesvari, 2006, "Bandit based Monte-Carlo planning".

    Args:
        playouts: For each position.
        exploration: Of UCB1, for gains between -1 and 1.
        seed: Decides what is drawn.
    """
    # One generator for all games: they are searched together, in one order.
    random = np.random.default_rng(seeding.key(seed, "rollouts"))

    def evaluate(leaves: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # Random numbers below any difference: which of the moves not tried comes first.
        order = random.random((len(leaves), game.moves), np.float32)
        return order, play_out(game, leaves, random)

    def choose(tree: Tree, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        visits = tree.visits[rows, nodes]
        order = tree.logits[rows, nodes]
        spread = np.sqrt(np.log(visits.sum(1, keepdims=True) + 1) / np.maximum(visits, 1))
        score = tree.gains(rows, nodes) + exploration * spread
        # What was not tried comes before all that was.
        score = np.where(visits > 0, score, 1e6 + order)
        best: NDArray[np.int64] = np.where(np.isfinite(order), score, -np.inf).argmax(1)
        return best

    tree = Tree(game, states, playouts, evaluate)
    for _ in range(playouts):
        tree.simulate(choose, choose)
    visits = tree.visits[:, 0]
    everyone = np.arange(len(states))
    gains = tree.gains(everyone, np.zeros(len(states), np.int64))
    legal = np.isfinite(tree.logits[:, 0])
    priors = (legal / legal.sum(1, keepdims=True)).astype(np.float32)
    policy = visits / visits.sum(1, keepdims=True)
    # Visits tie often where there are few playouts; a gain is less than a visit by any scale.
    moves = (visits + 0.4 * gains).argmax(1)
    return Found(moves, policy, tree.root_values(), visits, gains, priors)
