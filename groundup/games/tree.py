"""Search trees of many games at once, in arrays: every simulation goes down all trees together, and
the leaves are evaluated in one batch.

Shape legend: G games, N nodes of a tree, A moves, R rows: the games that still go down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Game

__all__ = ["Choose", "Tree", "masked", "softmax"]

Choose = Callable[["Tree", NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Chooses a move (R,) in each of some nodes, by the games (R,) and the nodes (R,)."""


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities along the last axis; -inf gives 0."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    found: NDArray[np.float32] = powers / powers.sum(-1, keepdims=True)
    return found


def masked(logits: NDArray[np.float32], legal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return logits with -inf for what is not legal."""
    return np.where(legal, logits, -np.inf).astype(np.float32)


class Tree:
    """Trees of games whose first nodes are given positions, none of which is over.

    Args:
        game: The rules.
        roots: (G, K) positions.
        simulations: How many will be made.
        evaluate: Thinks of positions.

    Attributes:
        logits: (G, N, A) of the moves of each node, -inf where illegal.
        visits: (G, N, A) how often each was tried.
        totals: (G, N, A) sums of what these brought to the player to move.
        values: (G, N) what was first thought of a node, by its player to move.
        players: (G, N) who is to move.
    """

    def __init__(
        self, game: Game, roots: NDArray[Any], simulations: int, evaluate: Evaluate
    ) -> None:
        count = len(roots)
        size = simulations + 1
        shape = (count, size, game.moves)
        self.game = game
        self.logits = np.zeros(shape, np.float32)
        self.visits = np.zeros(shape, np.float32)
        self.totals = np.zeros(shape, np.float32)
        self.values = np.zeros((count, size), np.float32)
        self.players = np.zeros((count, size), np.int64)
        # Small integers: trees of thousands of simulations hold one for each move.
        self._children = np.full(shape, -1, np.int32)
        self._states = np.empty((count, size, *roots.shape[1:]), roots.dtype)
        self._over = np.zeros((count, size), np.bool_)
        self._evaluate = evaluate
        # All trees have their nodes at the same places, so that one number says how many are used.
        self._used = 0
        self._everyone = np.arange(count)
        self._add(self._everyone, roots)

    def simulate(self, at_root: Choose, below: Choose) -> None:
        """Go down every tree to a leaf, evaluate the leaves, and add what they are worth to the
        moves that led there."""
        rows = self._everyone
        nodes = np.zeros(len(rows), np.int64)
        leaf_values = np.zeros(len(rows), np.float32)
        leaf_players = np.zeros(len(rows), np.int64)
        # Only what was gone through is changed, at the end: a row of games for each depth.
        path = []
        ends: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        choose = at_root
        while len(rows):
            moves = choose(self, rows, nodes)
            path.append((rows, nodes, moves))
            children = self._children[rows, nodes, moves].astype(np.int64)
            # One new position a game and simulation: so the network gets one batch, and memory is
            # known beforehand.
            new = children < 0
            if new.any():
                ends.append((rows[new], nodes[new], moves[new]))
            # A game that is over is worth what it ended with, however often it is reached.
            done = ~new & self._over[rows, children]
            if done.any():
                leaf_values[rows[done]] = self.values[rows[done], children[done]]
                leaf_players[rows[done]] = self.players[rows[done], children[done]]
            go_on = ~(new | done)
            rows = rows[go_on]
            nodes = children[go_on]
            choose = below
        if ends:
            grown = self._expand(*(np.concatenate(part) for part in zip(*ends, strict=True)))
            leaf_values[grown] = self.values[grown, self._used - 1]
            leaf_players[grown] = self.players[grown, self._used - 1]
        for rows, nodes, moves in path:
            # Gains add up to 0: what one player wins the other loses.
            same = self.players[rows, nodes] == leaf_players[rows]
            own = np.where(same, leaf_values[rows], -leaf_values[rows])
            self.totals[rows, nodes, moves] += own
            self.visits[rows, nodes, moves] += 1

    def gains(self, rows: NDArray[np.int64], nodes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (R, A) what each move of some nodes brought on average; 0 where not tried."""
        visits = self.visits[rows, nodes]
        found = self.totals[rows, nodes] / np.maximum(visits, np.float32(1))
        return found.astype(np.float32)

    def root_values(self) -> NDArray[np.float32]:
        """Return (G,) what the players to move can expect: the first thought and all simulations
        together."""
        # The first thought counts as one simulation, so that there is a value before any.
        visits = self.visits[:, 0].sum(1)
        found: NDArray[np.float32] = (self.values[:, 0] + self.totals[:, 0].sum(1)) / (1 + visits)
        return found

    def _expand(
        self, rows: NDArray[np.int64], nodes: NDArray[np.int64], moves: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        self._children[rows, nodes, moves] = self._used
        self._add(rows, self.game.play(self._states[rows, nodes], moves))
        return rows

    def _add(self, rows: NDArray[np.int64], states: NDArray[Any]) -> None:
        """Put positions into the next place of some trees; in the others it stays empty."""
        place = self._used
        self._used += 1
        over, values = self.game.outcome(states)
        self._states[rows, place] = states
        self._over[rows, place] = over
        self.players[rows, place] = self.game.player(states)
        open_ones = np.flatnonzero(~over)
        if len(open_ones):
            logits, thought = self._evaluate(states[open_ones])
            legal = self.game.legal(states[open_ones])
            self.logits[rows[open_ones], place] = masked(logits, legal)
            values = values.copy()
            values[open_ones] = thought
        self.values[rows, place] = values
