"""Searches, players and matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from groundup.games.catalogue import find_game
from groundup.games.draws import PLACES, dirichlet, draw_moves, gumbel
from groundup.games.gumbel import halving_plan, search_gumbel
from groundup.games.network import thoughts_of
from groundup.games.players import RandomPlayer, Rollouts, Searcher, play_match
from groundup.games.puct import search_puct
from groundup.games.ratings import elo_ratings
from groundup.games.remembered import Remembered
from groundup.games.rollouts import play_out, search_rollouts
from groundup.games.self_play import PlaySettings, SearchSettings, play_round
from groundup.models.policy_value import PolicyValueConfig

GAME = find_game("connect_four")
# The player to move wins at once in the first column; the other would win there, too.
WON = "1 2 1 2 1 2"


def thinks(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Think of each position by itself: a function of the stones alone."""
    mixed = (states * np.array([2654435761, 40503])).sum(1, keepdims=True) % 1009
    logits = np.sin(mixed * np.arange(1, 8)).astype(np.float32)
    return logits, np.cos(mixed[:, 0]).astype(np.float32) / 2


def nothing(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(states), 7), np.float32), np.zeros(len(states), np.float32)


SEARCHES: dict[str, Any] = {
    "gumbel": lambda states, **more: search_gumbel(GAME, states, thinks, simulations=24, **more),
    "puct": lambda states, **more: search_puct(GAME, states, thinks, simulations=24, **more),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_games_do_not_see_each_other(name: str) -> None:
    states = np.concatenate([GAME.read(text) for text in ("", "4", "4 4 3", WON, "1 1 1 1 1 1")])
    turns = np.arange(5) * PLACES + 3
    noise = {"gumbel": 1.0, "puct": 0.25}[name]
    search = SEARCHES[name]
    together = search(states, noise=noise, seed=7, turns=turns)
    for row in range(5):
        alone = search(states[row : row + 1], noise=noise, seed=7, turns=turns[row : row + 1])
        for mine, theirs in zip(together, alone, strict=True):
            assert np.allclose(mine[row], theirs[0], atol=1e-6)
    assert (together.visits.sum(1) == 24).all()
    assert together.visits[4, 0] == 0  # a full column
    assert np.allclose(together.policy.sum(1), 1, atol=1e-5)
    other = search(states, noise=noise, seed=8, turns=turns)
    assert (other.visits != together.visits).any()


@pytest.mark.parametrize("name", ["gumbel", "puct", "rollouts"])
def test_a_search_finds_what_wins(name: str) -> None:
    states = np.concatenate([GAME.read(WON), GAME.read("4 1 4 1 4")])
    found = {
        "gumbel": lambda: search_gumbel(GAME, states, nothing, simulations=256),
        "puct": lambda: search_puct(GAME, states, nothing, simulations=256),
        "rollouts": lambda: search_rollouts(GAME, states, playouts=200),
    }[name]()
    assert found.moves[0] == 0
    assert found.gains[0, 0] == 1
    assert found.moves[1] == 3  # the only move that does not lose


def test_the_plan_halves() -> None:
    assert halving_plan(4, 16) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert halving_plan(2, 3) == [0, 0, 1]
    assert halving_plan(1, 3) == [0, 1, 2]
    assert halving_plan(16, 4) == [0, 0, 0, 0]


def test_a_temperature_draws_moves() -> None:
    states = np.repeat(GAME.start(1), 200, 0)
    turns = np.arange(200) * PLACES
    still = search_puct(GAME, states, thinks, simulations=16, turns=turns)
    warm = search_puct(GAME, states, thinks, simulations=16, temperature=1.0, turns=turns)
    assert len(set(still.moves.tolist())) == 1
    counts = np.bincount(warm.moves, minlength=7) / 200
    assert np.abs(counts - warm.policy[0]).max() < 0.12


def test_draws_are_keyed() -> None:
    turns = np.arange(5000)
    noise = gumbel(0, turns, 3)
    assert abs(noise.mean() - 0.5772) < 0.05
    assert (gumbel(0, turns[7:8], 3) == noise[7]).all()
    legal = np.ones((3, 4), np.bool_)
    legal[1, 2] = False
    mixed = dirichlet(0, np.arange(3), legal, 0.5)
    assert np.allclose(mixed.sum(1), 1)
    assert mixed[1, 2] == 0
    shares = np.array([[0.0, 1, 3, 0]], np.float32)
    drawn = draw_moves(0, turns, np.repeat(shares, 5000, 0))
    assert set(drawn.tolist()) == {1, 2}
    assert abs((drawn == 2).mean() - 0.75) < 0.03


def test_random_games_end_by_the_rules() -> None:
    random = np.random.default_rng(0)
    values = play_out(GAME, np.repeat(GAME.start(1), 2000, 0), random)
    # Who begins wins more: 55.6% of random games, and 0.3% are drawn.
    assert abs((values > 0).mean() - 0.556) < 0.04
    assert (play_out(GAME, GAME.play(GAME.read(WON), np.array([0])), random) == -1).all()


def test_matches_are_counted_for_the_first_player() -> None:
    match = play_match(GAME, Rollouts(GAME, 30), RandomPlayer(GAME), 4)
    assert match.count(1) == 4
    assert match.count(1, began=True) == match.count(1, began=False) == 2
    assert match.score == 1.0
    back = play_match(GAME, RandomPlayer(GAME), Rollouts(GAME, 30), 4)
    assert back.count(-1) == 4
    players = [Searcher(GAME, thinks, 0), Searcher(GAME, nothing, 0)]
    opened = play_match(GAME, *players, 6, openings=3, seed=1)
    firsts = [moves[:3] for moves in opened.moves]
    assert firsts[0] == firsts[1]
    assert firsts[2] == firsts[3] != firsts[0]
    assert opened.moves == play_match(GAME, *players, 6, openings=3, seed=1).moves


def test_ratings_follow_the_odds() -> None:
    # Ten wins for each loss are 400; with the added draw (100 + 0.5) to (10 + 0.5).
    scores = np.array([[0.0, 10.0], [100.0, 0.0]])
    games = np.array([[0.0, 110.0], [110.0, 0.0]])
    elo = elo_ratings(scores, games)
    assert elo[0] == 0
    assert elo[1] == pytest.approx(400 * np.log10(100.5 / 10.5), abs=1e-3)


def test_a_folded_network_thinks_the_same() -> None:
    torch.manual_seed(0)
    config = PolicyValueConfig(
        backbone={"name": "resnet", "layers": [1], "width": 8, "stem": "small"},
        input_shape=GAME.planes,
        outputs=7,
    )
    model = config.build()
    states = np.concatenate([GAME.read(text) for text in ("", "4", "4 4 3", WON)])
    planes = torch.from_numpy(GAME.encode(states))
    for _ in range(5):
        model(planes)
    model.eval()
    with torch.no_grad():
        expected = model(planes).numpy()
    logits, values = thoughts_of(model, GAME)(states)
    assert np.allclose(logits, expected[:, :-1], atol=1e-5)
    assert np.allclose(values, expected[:, -1], atol=1e-5)


# ---------------------------------------------------------------------------------------- self-play
def rounds(**settings: Any) -> Any:
    search = SearchSettings(simulations=6)
    play = PlaySettings(search, **settings)
    return play_round(GAME, play, thinks, [nothing], 3, np.arange(12))


def test_positions_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def evaluate(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(states))
        return thinks(states)

    remembered = Remembered(GAME, evaluate)
    first = np.concatenate([GAME.read(text) for text in ("4", "1 1", "4", "1 2")])
    second = np.concatenate([GAME.read(text) for text in ("1 2", "3", "4")])
    for states in (first, second, first):
        for found, wanted in zip(remembered(states), thinks(states), strict=True):
            assert np.array_equal(found, wanted)
    # Two rows of the first four are one position, and one of the next three is new.
    assert asked == [3, 1]
    monkeypatch.setattr("groundup.games.remembered._MOST", 6)
    assert np.array_equal(remembered(first)[1], thinks(first)[1])
    assert asked == [3, 1, 3]


def test_every_position_is_recorded_with_how_its_game_ended() -> None:
    found = rounds()
    assert sum(found.results) == 12
    assert found.policy.shape == (len(found.states), 7)
    first = found.states[:, 1] == 0
    assert first.sum() == 12
    # The beginner's view of the games: won, drawn, lost.
    ends = found.ended[first]
    assert ((ends > 0).sum(), (ends == 0).sum(), (ends < 0).sum()) == found.results
    for game in range(12):
        own = found.ended[found.games == game]
        assert (own[1:] == -own[:-1]).all()


def test_openings_short_searches_and_past_selves_are_not_learned_from() -> None:
    whole = len(rounds().states)
    assert (rounds(openings=6).states[:, 1] == 0).sum() < 12
    assert len(rounds(fast_share=0.75, fast_simulations=2).states) < 0.5 * whole
    past = rounds(past_share=1.0)
    for game in range(12):
        turns = np.bitwise_count(past.states[past.games == game, 1])
        assert len(set((turns % 2).tolist())) == 1


def test_giving_up_is_watched() -> None:
    found = rounds(resign_below=-0.2)
    assert found.resigned > 0
    search = SearchSettings(simulations=6)
    many = play_round(GAME, PlaySettings(search, resign_below=-0.2), thinks, [], 3, np.arange(60))
    watched, wrong = many.unresigned
    assert 0 < watched < 20
    assert 0 < wrong <= watched
