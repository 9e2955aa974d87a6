"""A model plays against itself, many games at once, and against what it was before.

Shape legend: G games, N recorded positions, A moves, K numbers of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Evaluate, Found, Game
from groundup.core import seeding
from groundup.core.settings import Settings, setting
from groundup.games.draws import PLACES
from groundup.games.gumbel import search_gumbel
from groundup.games.players import RandomPlayer
from groundup.games.puct import search_puct

__all__ = ["Experience", "PlaySettings", "SearchSettings", "play_round"]

_UNRESIGNED = 0.1  # of the games: played to the end, to see whether giving up would be right


class SearchSettings(Settings):
    """How each move of self-play is searched."""

    algorithm: Literal["gumbel", "puct"] = setting(
        "gumbel", "gumbel learns from few simulations; puct is AlphaZero's"
    )
    simulations: int = setting(32, "Simulations of a move", ge=1, le=10_000)
    candidates: int = setting(
        16, "Moves tried at most", ge=2, applies_when={"algorithm": ("gumbel",)}
    )
    value_scale: float = setting(
        1.0,
        "Weight of what moves bring next to what the network thinks of them",
        gt=0,
        applies_when={"algorithm": ("gumbel",)},
    )
    exploration: float = setting(
        1.5, "Weight of moves seldom tried", gt=0, applies_when={"algorithm": ("puct",)}
    )
    noise: float = setting(
        0.25,
        "Share of Dirichlet noise in what the network thinks of first moves",
        ge=0,
        le=1,
        applies_when={"algorithm": ("puct",)},
    )
    alpha: float = setting(
        1.0,
        "Of that noise: 10 over the number of legal moves is usual",
        gt=0,
        applies_when={"algorithm": ("puct",)},
    )
    temperature: float = setting(
        1.0,
        "By which the first moves of a game are drawn; 0 plays the move tried most",
        ge=0,
        applies_when={"algorithm": ("puct",)},
    )
    temperature_moves: int = setting(
        12, "How many moves are drawn so", ge=0, applies_when={"algorithm": ("puct",)}
    )


class PlaySettings(NamedTuple):
    """How games are played; see the settings of data self_play."""

    search: SearchSettings
    openings: int = 0
    fast_share: float = 0.0
    fast_simulations: int = 8
    resign_below: float | None = None
    past_share: float = 0.0


@dataclass
class Experience:
    """Positions of games that a model played, one row each, and counts of the games.

    Attributes:
        states: (N, K).
        policy: (N, A) what the search thought of the moves.
        searched: (N,) what it thought the player to move could expect.
        ended: (N,) what that player won in the end.
        games: (N,) the number of the game.
        results: How many games the beginner won, were drawn, and lost.
        resigned: How many games were given up.
        unresigned: How many would have been but were played on, and how many of these were not
            lost.
    """

    states: NDArray[Any]
    policy: NDArray[np.float32]
    searched: NDArray[np.float32]
    ended: NDArray[np.float32]
    games: NDArray[np.int64]
    results: tuple[int, int, int]
    resigned: int = 0
    unresigned: tuple[int, int] = (0, 0)


@dataclass
class _Games:
    """Games that are played at the same time."""

    game: Game
    numbers: NDArray[np.int64]
    states: NDArray[Any]
    openings: NDArray[np.int64]  # moves drawn at the beginning of each
    past: NDArray[np.int64]  # which past self plays in it, -1: none
    side: NDArray[np.int64]  # whom the model plays there: 0 began
    plays_on: NDArray[np.bool_]  # though it would give up
    results: NDArray[np.float32]  # what the beginner won
    given_up: NDArray[np.int64]  # by whom first, -1: by nobody
    rows: list[tuple[NDArray[Any], ...]] = field(default_factory=list)


def play_round(
    game: Game,
    settings: PlaySettings,
    evaluate: Evaluate,
    past: Sequence[Evaluate],
    seed: int,
    numbers: NDArray[np.int64],
) -> Experience:
    """Return what games (G,) show, played to the end with the weights of now.

    Source:
        Silver et al., 2018, "A general reinforcement learning algorithm that masters chess, shogi,
        and Go through self-play"; moves searched shortly and not learned from: Wu, 2019
        (arXiv:1902.10565), section 3.1; past selves as opponents: Bansal et al., 2017
        (arXiv:1710.03748), section 3.3.

    Args:
        game: The rules.
        settings: How to play.
        evaluate: What the model thinks of positions.
        past: What past selves think of them.
        seed: With the numbers of games and moves it decides what is drawn.
        numbers: The games' numbers.
    """
    games = _begin(game, settings, len(past), seed, numbers)
    left = np.arange(len(numbers))
    for turn in range(game.longest + 1):
        outcome = game.outcome(games.states[left])
        ended = left[outcome.over]
        sign = 1 - 2 * game.player(games.states[ended])
        games.results[ended] = sign * outcome.value[outcome.over]
        left = left[~outcome.over]
        left = left[(games.given_up[left] < 0) | games.plays_on[left]]
        if not len(left):
            break
        _move(games, left, turn, settings, evaluate, past, seed)
    return _gather(games)


def _begin(
    game: Game, settings: PlaySettings, past: int, seed: int, numbers: NDArray[np.int64]
) -> _Games:
    drawn = seeding.uniforms(seed, "game", numbers, 5)
    openings = (drawn[0] * (settings.openings + 1)).astype(np.int64)
    # Drawn for each game before it begins, so that a resumed run meets the same opponents.
    opponents = np.full(len(numbers), -1)
    if past:
        chosen = drawn[1] < settings.past_share
        opponents = np.where(chosen, (drawn[2] * past).astype(np.int64), -1)
    return _Games(
        game,
        numbers,
        game.start(len(numbers)),
        openings,
        opponents,
        (drawn[3] * 2).astype(np.int64),
        drawn[4] < _UNRESIGNED,
        np.zeros(len(numbers), np.float32),
        np.full(len(numbers), -1),
    )


def _move(
    games: _Games,
    left: NDArray[np.int64],
    turn: int,
    settings: PlaySettings,
    evaluate: Evaluate,
    past: Sequence[Evaluate],
    seed: int,
) -> None:
    """Make a move in games that go on, and record what is to be learned from."""
    game = games.game
    turns = games.numbers * PLACES + turn
    players = game.player(games.states[left])
    # The model plays both sides where there is no past self: -1 is never another's number.
    who = np.where(players == games.side[left], -1, games.past[left])
    fast = seeding.uniforms(seed, "fast", turns[left])[0] < settings.fast_share
    opening = turn < games.openings[left]
    # Drawn evenly: what the model prefers it sees often enough.
    drawn = left[opening]
    if len(drawn):
        found = RandomPlayer(game, seed)(games.states[drawn], turns[drawn])
        games.states[drawn] = game.play(games.states[drawn], found.moves)
    for player in np.unique(who[~opening]).tolist():
        thinks = past[player] if player >= 0 else evaluate
        for quick in (False, True):
            chosen = ~opening & (who == player) & (fast == quick)
            rows = left[chosen]
            if not len(rows):
                continue
            states = games.states[rows]
            found = _search(game, settings, states, thinks, seed, turns[rows], turn, quick=quick)
            # Moves of a past self are its own: the model would learn to play as it did.
            if player < 0 and not quick:
                record = (rows, states, found.policy, found.values, players[chosen])
                games.rows.append(record)
            if player < 0 and settings.resign_below is not None:
                hopeless = (found.values < settings.resign_below) & (games.given_up[rows] < 0)
                games.given_up[rows[hopeless]] = players[chosen][hopeless]
                # What is played on gets another result in the end.
                games.results[rows[hopeless]] = 2 * players[chosen][hopeless] - 1
            games.states[rows] = game.play(states, found.moves)


def _search(
    game: Game,
    settings: PlaySettings,
    states: NDArray[Any],
    evaluate: Evaluate,
    seed: int,
    turns: NDArray[np.int64],
    turn: int,
    *,
    quick: bool,
) -> Found:
    search = settings.search
    simulations = settings.fast_simulations if quick else search.simulations
    # Nothing is learned from a quick move: it need not look around, but be good.
    if search.algorithm == "gumbel":
        return search_gumbel(
            game,
            states,
            evaluate,
            simulations=simulations,
            candidates=search.candidates,
            value_scale=search.value_scale,
            noise=float(not quick),
            seed=seed,
            turns=turns,
        )
    return search_puct(
        game,
        states,
        evaluate,
        simulations=simulations,
        exploration=search.exploration,
        noise=search.noise * (not quick),
        alpha=search.alpha,
        temperature=search.temperature * (turn < search.temperature_moves),
        seed=seed,
        turns=turns,
    )


def _gather(games: _Games) -> Experience:
    nothing = np.zeros(0, np.int64)
    none = np.zeros((0, games.game.moves), np.float32)
    empty = (nothing, games.states[:0], none, none[:, 0], nothing)
    columns = [np.concatenate(part) for part in zip(empty, *games.rows, strict=True)]
    rows, states, policy, searched, players = columns
    # From the view of whoever was to move, as the network sees every position.
    ended = np.where(players == 0, games.results[rows], -games.results[rows])
    signs = np.sign(games.results)
    given_up = games.given_up >= 0
    on = given_up & games.plays_on
    lost = games.results[on] == 2 * games.given_up[on] - 1
    return Experience(
        states,
        policy,
        searched,
        ended.astype(np.float32),
        games.numbers[rows],
        (int((signs > 0).sum()), int((signs == 0).sum()), int((signs < 0).sum())),
        int((given_up & ~on).sum()),
        (int(on.sum()), int((~lost).sum())),
    )
