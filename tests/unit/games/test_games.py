"""Rules of groundup's own games, checked against OpenSpiel's."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.contracts.games import Game
from groundup.core.errors import DataError, MissingExtraError, RecipeError
from groundup.games.catalogue import OWN, find_game
from groundup.games.connect_four_solver import solve_connect_four
from groundup.games.exhaustive import solve, worst_results
from groundup.games.labelled import labelled_positions, solved_game

pyspiel = pytest.importorskip("pyspiel")


def random_games(game: Game, count: int, moves: int) -> np.ndarray:
    """Return positions after random moves that are not over."""
    random = np.random.default_rng(0)
    states = game.start(count)
    for _ in range(moves):
        states = states[~game.outcome(states).over]
        drawn = random.random((len(states), game.moves))
        states = game.play(states, np.where(game.legal(states), drawn, -1).argmax(1))
    return states[~game.outcome(states).over]


@pytest.mark.parametrize("name", list(OWN))
def test_the_rules_are_those_of_open_spiel(name: str) -> None:
    own = find_game(name)
    other = find_game(f"open_spiel/{name}")
    random = np.random.default_rng(1)
    states = own.start(20)
    theirs = other.start(20)
    for _ in range(own.longest + 1):
        ended = own.outcome(states)
        ended_there = other.outcome(theirs)
        assert (ended.over == ended_there.over).all()
        # That library says of the end what the beginner has won.
        beginners = np.where(own.player(states) == 0, ended.value, -ended.value)
        assert (beginners == ended_there.value).all()
        states = states[~ended.over]
        theirs = theirs[~ended.over]
        if not len(states):
            break
        assert (own.legal(states) == other.legal(theirs)).all()
        assert (own.player(states) == other.player(theirs)).all()
        assert "".join(own.board(states[0])) == "".join(other.board(theirs[0]))
        drawn = random.random((len(states), own.moves))
        moves = np.where(own.legal(states), drawn, -1).argmax(1)
        states = own.play(states, moves)
        theirs = other.play(theirs, moves)
    assert not len(states)


@pytest.mark.parametrize("name", list(OWN))
def test_symmetric_views_are_played_alike(name: str) -> None:
    game = find_game(name)
    views = game.symmetries()
    assert len({tuple(view.moves) for view in views}) == {"tic_tac_toe": 8, "connect_four": 2}[name]
    history = [0, 4, 1, 5, 6]
    planes = game.encode(game.replay(history)).reshape(3, -1)
    for view in views:
        back = {int(old): new for new, old in enumerate(view.moves)}
        # The same moves in the other view give the other view of what they give.
        turned = game.encode(game.replay([back[move] for move in history])).reshape(3, -1)
        assert (turned == planes[:, view.places]).all()


def test_moves_by_name() -> None:
    game = find_game("tic_tac_toe")
    assert game.board(game.read("b2 a1 C3")[0]) == ["...", ".x.", "o.x"] or game.board(
        game.read("b2 a1 C3")[0]
    ) == ["..x", ".x.", "o.."]
    with pytest.raises(DataError, match=r"move 2: is b2, but legal are: a3, b3, c3, a2, c2"):
        game.read("b2 b2")
    with pytest.raises(DataError, match=r"move 6: is c1, but the game is over"):
        game.read("a1 a2 b1 b2 c1 c1")
    with pytest.raises(DataError, match=r"move 2: is 9, but legal are"):
        game.replay([0, 9])


@pytest.mark.slow
def test_small_games_are_solved_whole() -> None:
    solved = solved_game("tic_tac_toe")
    assert solved is not None
    assert sum(map(len, solved.layers)) == 5478
    assert solved.value(solved.game.start(1)) == 0
    assert solved_game("connect_four") is None
    # Who plays the first legal move is beaten from both sides.
    found, perfect, second = worst_results(
        solved, lambda states: solved.game.legal(states).argmax(1)
    )
    assert len(found) == len(perfect) == 4520
    assert found[-1] == second == -1
    found, perfect, second = worst_results(solved, lambda states: solved.gains(states).argmax(1))
    assert (found == perfect).all()
    assert second == 0


@pytest.mark.slow
def test_connect_four_is_solved_from_half_full_boards() -> None:
    game = find_game("connect_four")
    states = random_games(game, 200, 34)
    known: dict[int, float] = {}

    def value(state: np.ndarray) -> float:
        key = game.keys(state)[0]
        if key not in known:
            over, values = game.outcome(state)
            legal = np.flatnonzero(game.legal(state)[0])
            known[key] = float(values[0])
            if not over[0]:
                known[key] = max(-value(game.play(state, np.array([move]))) for move in legal)
        return known[key]

    found = solve_connect_four(states)
    assert len(states) > 5
    for row, gains in zip(states, found, strict=True):
        for move in np.flatnonzero(game.legal(row[None])[0]):
            assert gains[move] == -value(game.play(row[None], np.array([move])))


@pytest.mark.slow
def test_held_out_positions_are_in_one_part_and_matter() -> None:
    game = find_game("tic_tac_toe")
    parts = [labelled_positions(game, 100, 0, part)[0] for part in (0, 1)]
    keys = [{game.keys(game.read(each.inputs))[0] for each in part} for part in parts]
    assert not keys[0] & keys[1]
    assert all(0 < (each.target.policy > 0).sum() < 9 for part in parts for each in part)
    assert all(each.target.exact for part in parts for each in part)


@pytest.mark.slow
def test_open_spiel_games_play() -> None:
    game = find_game("hex(board_size=3)")
    assert game.planes[1:] == (3, 3)
    states = game.play(game.start(2), np.array([0, 4]))
    assert game.player(states).tolist() == [1, 1]
    assert game.legal(states).sum(1).tolist() == [8, 8]
    assert game.encode(states).shape == (2, *game.planes)
    examples, words = labelled_positions(game, 4, 0, 0)
    assert "random games" in words or "every position" in words
    assert examples


REFUSED = {
    "backgammon": "has chance",
    "kuhn_poker": "has chance and hidden information",
    "matrix_pd": "moves at the same time",
    "connect_for": r"neither groundup nor OpenSpiel has this game. Near are: .*connect_four",
    "hex(nothing=1)": "which OpenSpiel refuses",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_games_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED[name]):
        find_game(name)


def test_without_open_spiel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyspiel", None)
    with pytest.raises(MissingExtraError, match=r"groundup\[games\]"):
        find_game("othello(x=1)")


@pytest.mark.slow
def test_too_large_games_are_not_solved() -> None:
    with pytest.raises(DataError, match="more than 200,000 positions"):
        solve(find_game("connect_four"))
