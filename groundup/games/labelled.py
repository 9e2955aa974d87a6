"""Positions with what is right in them, to measure a player by.

Shape legend: N positions, K numbers of a state, A moves.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from groundup.contracts.games import Game, Judged
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.games.catalogue import OWN, find_game
from groundup.games.connect_four import ConnectFour
from groundup.games.connect_four_solver import LEAST_STONES, solve_connect_four
from groundup.games.exhaustive import Solved, solve
from groundup.games.rollouts import search_rollouts

__all__ = ["labelled_positions", "solved_game"]

_FEW = 2_000  # positions of a game of another library that is solved whole
_PLAYOUTS = 400  # of a move where nothing is known exactly


@lru_cache
def solved_game(name: str) -> Solved | None:
    """Return a game of the catalogue solved whole, None where it is too large for that."""
    try:
        # Games of objects are looked at one position after the other.
        return solve(find_game(name)) if name in OWN else solve(find_game(name), _FEW)
    except DataError:
        return None


@lru_cache
def labelled_positions(game: Game, count: int, seed: int, part: int) -> tuple[list[Example], str]:
    """Return positions of random games, and in words how it is known what is right in them.

    Only positions where it matters: one move at least is worse than another. A small game is looked
    at whole; Connect Four from 26 stones on; other games by a search with random games.

    Args:
        game: The rules.
        count: How many positions at most; there may be fewer.
        seed: Decides which.
        part: 0 or 1: no position is in both parts.
    """
    solved = solved_game(game.name)
    if solved is not None:
        words = "perfect play, by looking at every position"
        positions = _drawn(game, count, seed, part, 0)
        return _judged(game, positions, solved.gains, exact=True, count=count), words
    if isinstance(game, ConnectFour):
        words = f"perfect play from {LEAST_STONES} stones on, by exhaustive search"
        positions = _drawn(game, 4 * count, seed, part, LEAST_STONES)
        return _judged(game, positions, solve_connect_four, exact=True, count=count), words
    words = f"a search with {_PLAYOUTS} random games a move"
    # Nobody knows the best move here, so the table says what it is compared with.
    positions = _drawn(game, count, seed, part, 0)
    return _estimated(game, positions, seed), words


def _drawn(game: Game, count: int, seed: int, part: int, least: int) -> list[list[int]]:
    """Return the moves of random games to different positions, with so many moves at least."""
    random = np.random.default_rng(seeding.key(seed, "positions", part))
    found: dict[Any, list[int]] = {}
    tries = 0
    while len(found) < count and tries < 40:
        tries += 1
        states = game.start(count)
        histories: list[list[int]] = [[] for _ in range(count)]
        rows = np.arange(count)
        for _ in range(game.longest):
            states_left = ~game.outcome(states).over
            rows = rows[states_left]
            states = states[states_left]
            if not len(rows):
                break
            # Games that are over have left, so the first of the others speaks for all.
            if len(histories[rows[0]]) >= least:
                # One position of a game, so that they are alike in nothing but by chance.
                stays = random.random(len(rows)) < 0.25
                for row, key in zip(rows[stays], game.keys(states[stays]), strict=True):
                    if histories[row] and seeding.key(0, f"part of {key}") % 2 == part:
                        found.setdefault(key, histories[row])
                rows = rows[~stays]
                states = states[~stays]
                if not len(rows):
                    break
            drawn = random.random((len(rows), game.moves))
            moves = np.where(game.legal(states), drawn, -1).argmax(1)
            states = game.play(states, moves)
            for row, move in zip(rows.tolist(), moves.tolist(), strict=True):
                histories[row].append(move)
    return list(found.values())[:count]


def _judged(
    game: Game, positions: list[list[int]], gains_of: Any, *, exact: bool, count: int
) -> list[Example]:
    states = np.concatenate([game.replay(moves) for moves in positions])
    gains = gains_of(states)
    found: list[Example] = []
    for moves, each in zip(positions, gains, strict=True):
        best = each == each.max()
        # Where every move is as good as the others nobody can go wrong.
        if best.sum() == np.isfinite(each).sum() or len(found) == count:
            continue
        policy = (best / best.sum()).astype(np.float32)
        found.append(_example(game, moves, Judged(game.name, policy, float(each.max()), exact)))
    return found


def _estimated(game: Game, positions: list[list[int]], seed: int) -> list[Example]:
    states = np.concatenate([game.replay(moves) for moves in positions])
    found = search_rollouts(game, states, playouts=_PLAYOUTS, seed=seed)
    return [
        _example(game, moves, Judged(game.name, policy, float(value), exact=False))
        for moves, policy, value in zip(positions, found.policy, found.values, strict=True)
    ]


def _example(game: Game, moves: list[int], target: Judged) -> Example:
    names = []
    states = game.start(1)
    for move in moves:
        names.append(game.move_name(states[0], move))
        states = game.play(states, np.array([move]))
    text = " ".join(names)
    return Example(text or "start", text, target, f"the position after {text or 'no move'}")
