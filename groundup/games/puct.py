"""PUCT search: moves are tried by what they brought, and by what the network thinks of them.

Shape legend: G games, A moves, R rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Found, Game
from groundup.games.draws import dirichlet, draw_moves
from groundup.games.tree import Tree, softmax

__all__ = ["search_puct"]


def search_puct(
    game: Game,
    states: NDArray[Any],
    evaluate: Evaluate,
    *,
    simulations: int,
    exploration: float = 1.5,
    noise: float = 0.0,
    alpha: float = 1.0,
    temperature: NDArray[np.float32] | float = 0.0,
    seed: int = 0,
    turns: NDArray[np.int64] | None = None,
) -> Found:
    """Return what the search thinks of positions (G, K) that are not over.

    Source:
        Silver et al., 2018, "A general reinforcement learning algorithm that masters chess, shogi,
        and Go through self-play", methods.
        Departs from it: ``exploration`` does not grow with the visits; a move not tried yet counts
        as what its position was thought to bring.

    Args:
        simulations: For each position.
        exploration: Weight of what the network thinks of moves seldom tried.
        noise: Share of Dirichlet noise in the network's thoughts about first moves.
        alpha: Of that noise.
        temperature: 0 plays the move tried most, 1 draws by how often each was tried; of each game
            or of all.
        seed: With ``turns`` decides what is drawn.
        turns: (G,) numbers of the turns, as ``draws.PLACES`` has it.
    """
    tree = Tree(game, states, simulations, evaluate)
    # Before the noise: what is shown is what the network thinks.
    priors = softmax(tree.logits[:, 0])
    drawn_for = np.zeros(len(states), np.int64)
    if turns is not None:
        drawn_for = turns
    if noise:
        legal = np.isfinite(tree.logits[:, 0])
        mixed = (1 - noise) * priors + noise * dirichlet(seed, drawn_for, legal, alpha)
        with np.errstate(divide="ignore"):
            tree.logits[:, 0] = np.where(legal, np.log(mixed), -np.inf)

    def choose(tree: Tree, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        logits = tree.logits[rows, nodes]
        visits = tree.visits[rows, nodes]
        # Not 0, which would be a draw: in a lost position every untried move would look good.
        gains = np.where(visits > 0, tree.gains(rows, nodes), tree.values[rows, nodes][:, None])
        # One more, so that the first try already goes by what the network thinks.
        tries = np.sqrt(visits.sum(1, keepdims=True) + 1)
        score = gains + exploration * softmax(logits) * tries / (1 + visits)
        best: NDArray[np.int64] = np.where(np.isfinite(logits), score, -np.inf).argmax(1)
        return best

    for _ in range(simulations):
        tree.simulate(choose, choose)
    visits = tree.visits[:, 0]
    warm = np.broadcast_to(np.asarray(temperature, np.float32), len(states))
    moves = visits.argmax(1)
    if (warm > 0).any():
        # Over the largest first: powers of counts overflow where the temperature is low.
        shares = visits / visits.max(1, keepdims=True)
        powers = shares ** (1 / np.maximum(warm, 0.01))[:, None]
        moves = np.where(warm > 0, draw_moves(seed, drawn_for, powers), moves)
    gains = tree.gains(np.arange(len(states)), np.zeros(len(states), np.int64))
    # The target is how often a move was tried: that is steadier than what it brought.
    policy = visits / visits.sum(1, keepdims=True)
    return Found(moves, policy, tree.root_values(), visits, gains, priors)
