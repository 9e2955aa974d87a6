"""Gumbel search: few simulations, and still what it learns is better than what it knew.

Shape legend: G games, A moves, R rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Found, Game
from groundup.games import draws
from groundup.games.tree import Tree, softmax

__all__ = ["halving_plan", "search_gumbel"]

_VISITS = 50.0  # of the paper: what is added to the visits that weigh gains


def halving_plan(candidates: int, simulations: int) -> list[int]:
    """Return, for each simulation, how often a move must have been tried to be tried now.

    All candidates are tried equally often in a phase; the better half of them goes on to the next.
    """
    # As much for the last few as for all at first: telling good moves apart takes the most tries.
    phases = max(1, math.ceil(math.log2(max(candidates, 2))))
    plan: list[int] = []
    tried = 0
    left = candidates
    while len(plan) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            plan += [tried] * left
            tried += 1
        # Of one alone nothing more could be learned: two go on to the end, for the target's sake.
        left = max(min(2, candidates), left // 2)
    return plan[:simulations]


def search_gumbel(
    game: Game,
    states: NDArray[Any],
    evaluate: Evaluate,
    *,
    simulations: int,
    candidates: int = 16,
    value_scale: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    turns: NDArray[np.int64] | None = None,
) -> Found:
    """Return what the search thinks of positions (G, K) that are not over.

    Source:
        Danihelka et al., 2022, "Policy improvement by planning with Gumbel": algorithm 2 at the
        root, section 5 below it, appendix D for the value of moves not tried.

    Args:
        simulations: For each position.
        candidates: Moves tried at most, the likeliest by the network and the noise.
        value_scale: Weight of what moves bring next to what the network thinks of them, c_scale of
            the paper; gains are between 0 and 1 for it.
        noise: Scale of the Gumbel noise: 1 draws moves as training needs it, 0 plays the best.
        seed: With ``turns`` decides what is drawn.
        turns: (G,) numbers of the turns, as ``draws.PLACES`` has it.
    """
    tree = Tree(game, states, simulations, evaluate)
    everyone = np.arange(len(states))
    first = np.zeros(len(states), np.int64)
    logits = tree.logits[:, 0]
    priors = softmax(logits)
    score = logits
    if noise and turns is not None:
        score = logits + noise * draws.gumbel(seed, turns, game.moves)
    allowed = np.minimum(np.isfinite(logits).sum(1), candidates)
    # Sorted twice, which gives ranks: a loop over hundreds of games would take as long as the
    # network does.
    order = np.argsort(np.argsort(-score, 1, kind="stable"), 1, kind="stable")
    considered = order < allowed[:, None]
    # Games with few legal moves have fewer candidates, and so another plan.
    plans = {count: halving_plan(count, simulations) for count in set(allowed.tolist())}
    plan = np.array([plans[count] for count in allowed.tolist()])

    def at_root(tree: Tree, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        # All games are at the same simulation, so that the first one's visits count for all.
        wanted = plan[:, int(tree.visits[0, 0].sum())][:, None]
        now = considered & (tree.visits[:, 0] == wanted)
        weighed = score + _weighed(tree, rows, nodes, value_scale)
        best: NDArray[np.int64] = np.where(now, weighed, -np.inf).argmax(1)
        return best

    def below(tree: Tree, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        visits = tree.visits[rows, nodes]
        better = softmax(tree.logits[rows, nodes] + _weighed(tree, rows, nodes, value_scale))
        share = visits / (1 + visits.sum(1, keepdims=True))
        # An illegal move has no chance, and is no better than one whose share is used up.
        best: NDArray[np.int64] = np.where(better > 0, better - share, -np.inf).argmax(1)
        return best

    for _ in range(simulations):
        tree.simulate(at_root, below)
    weighed = _weighed(tree, everyone, first, value_scale)
    visits = tree.visits[:, 0]
    # Of those that went through every phase: others were tried too seldom to be believed.
    most = visits == visits.max(1, keepdims=True)
    moves = np.where(most, score + weighed, -np.inf).argmax(1)
    # Without the noise, which chose what to try and is nothing to learn.
    policy = softmax(logits + weighed)
    gains = tree.gains(everyone, first)
    return Found(moves, policy, tree.root_values(), visits, gains, priors)


def _weighed(
    tree: Tree, rows: NDArray[np.int64], nodes: NDArray[np.int64], scale: float
) -> NDArray[np.float32]:
    """Return (R, A) what moves bring, as it is added to their logits; those not tried bring what
    the others and the first thought let expect."""
    visits = tree.visits[rows, nodes]
    gains = tree.gains(rows, nodes)
    priors = np.where(visits > 0, softmax(tree.logits[rows, nodes]), 0)
    known = (priors * gains).sum(1) / np.maximum(priors.sum(1), 1e-9)
    total = visits.sum(1)
    expected = (tree.values[rows, nodes] + total * known) / (1 + total)
    # A move that was not tried is not worth 0: it is as good as the position lets expect.
    complete = np.where(visits > 0, gains, expected[:, None])
    weight = scale * (_VISITS + visits.max(1))
    found: NDArray[np.float32] = (weight[:, None] * (complete + 1) / 2).astype(np.float32)
    return found
