"""Games of OpenSpiel by name: those for two players with perfect information and without chance.

Shape legend: B positions.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.games import Game, Outcome
from groundup.core.errors import MissingExtraError, RecipeError

__all__ = ["OpenSpielGame", "load_open_spiel"]


class OpenSpielGame(Game):
    """A game of OpenSpiel. A state is one object of that library, whose rules are called one
    position after the other: several times slower than games of arrays.

    Source:
        Lanctot et al., 2019 (arXiv:1908.09453).

    Args:
        name: What recipes call it.
        game: As ``pyspiel.load_game`` returns it.
    """

    def __init__(self, name: str, game: Any) -> None:
        self.name = name
        self._game = game
        self.moves = int(game.num_distinct_actions())
        self.longest = int(game.max_game_length())
        shape = tuple(game.observation_tensor_shape())
        self._shape = (*shape, 1, 1)[: max(3, len(shape))]
        channels, *sides = self._shape
        # One more plane says who is to move, which many of its observations do not.
        self.planes = (channels + 1, sides[0], int(np.prod(sides[1:])))
        self._most = max(abs(game.min_utility()), abs(game.max_utility()))

    def start(self, count: int) -> NDArray[Any]:
        return self._pack([self._game.new_initial_state() for _ in range(count)])

    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        found = np.zeros((len(states), self.moves), np.bool_)
        for row, state in enumerate(states[:, 0]):
            if not state.is_terminal():
                found[row, state.legal_actions()] = True
        return found

    def play(self, states: NDArray[Any], moves: NDArray[np.int64]) -> NDArray[Any]:
        after = []
        for state, move in zip(states[:, 0], moves.tolist(), strict=True):
            # The tree keeps the position before the move, too.
            changed = state.clone()
            changed.apply_action(move)
            after.append(changed)
        return self._pack(after)

    def outcome(self, states: NDArray[Any]) -> Outcome:
        over = np.array([state.is_terminal() for state in states[:, 0]], np.bool_)
        value = np.zeros(len(states), np.float32)
        players = self.player(states)
        for row in np.flatnonzero(over):
            value[row] = states[row, 0].returns()[players[row]] / self._most
        return Outcome(over, value)

    def player(self, states: NDArray[Any]) -> NDArray[np.int64]:
        # Who has won is told of the first player, where nobody is to move any more.
        return np.array([max(0, state.current_player()) for state in states[:, 0]], np.int64)

    def encode(self, states: NDArray[Any]) -> NDArray[np.float32]:
        found = np.zeros((len(states), *self.planes), np.float32)
        for row, player in enumerate(self.player(states)):
            seen = np.asarray(states[row, 0].observation_tensor(int(player)), np.float32)
            found[row, :-1] = seen.reshape(self.planes[0] - 1, *self.planes[1:])
            found[row, -1] = player
        return found

    def keys(self, states: NDArray[Any]) -> list[Any]:
        # Its texts leave out what only the moves tell, such as repetitions.
        return [tuple(state.history()) for state in states[:, 0]]

    def board(self, state: NDArray[Any]) -> list[str]:
        return str(state[0]).splitlines()

    def move_name(self, state: NDArray[Any], move: int) -> str:
        # Its names may hold blanks, which separate moves here.
        return re.sub(r"\s+", "", state[0].action_to_string(state[0].current_player(), move))

    def _pack(self, found: list[Any]) -> NDArray[Any]:
        states = np.empty((len(found), 1), object)
        states[:, 0] = found
        return states


def load_open_spiel(name: str, where: str) -> OpenSpielGame:
    """Return a game by the name that OpenSpiel has for it, with settings such as
    ``hex(board_size=5)``.

    Raises:
        MissingExtraError: If OpenSpiel is not installed.
        RecipeError: If it has no such game, or the game is not one that can be searched here.
    """
    try:
        import pyspiel
    except ImportError as error:
        raise MissingExtraError("open_spiel", "games") from error

    # Asked first: the library prints its own errors to the terminal.
    known = pyspiel.registered_names()
    asked = name.partition("(")[0]
    if asked not in known:
        near = difflib.get_close_matches(asked, known, n=3, cutoff=0.4)
        raise RecipeError(
            where,
            f"is {name}, but neither groundup nor OpenSpiel has this game",
            f"Near are: {', '.join(near)}" if near else "Choose tic_tac_toe or connect_four",
        )
    try:
        game = pyspiel.load_game(name)
    except pyspiel.SpielError as error:
        said = str(error).splitlines()[0]
        raise RecipeError(
            where, f"is {name}, which OpenSpiel refuses: {said}", "Correct its settings"
        ) from None
    _check(game, name, where, pyspiel)
    return OpenSpielGame(name, game)


def _check(game: Any, name: str, where: str, pyspiel: Any) -> None:
    """Raise an error unless a game has two players, no chance and nothing hidden."""
    kind = game.get_type()
    utility = pyspiel.GameType.Utility
    faults = {
        "chance": kind.chance_mode != pyspiel.GameType.ChanceMode.DETERMINISTIC,
        "hidden information": kind.information != pyspiel.GameType.Information.PERFECT_INFORMATION,
        "moves at the same time": kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL,
        f"{game.num_players()} players": game.num_players() != 2,
        "gains that do not add up to 0": kind.utility
        not in (utility.ZERO_SUM, utility.CONSTANT_SUM),
        "no observations as numbers": not kind.provides_observation_tensor,
    }
    found = [fault for fault, there in faults.items() if there]
    if found:
        raise RecipeError(
            where,
            f"is {name}, which has {' and '.join(found)}; allowed: two players, turn by turn,"
            " nothing hidden, no chance",
            "Choose another game, such as connect_four or othello",
        )
