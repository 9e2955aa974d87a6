"""Games by name: groundup's own, and OpenSpiel's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from groundup.contracts.games import Game
from groundup.games.connect_four import ConnectFour
from groundup.games.open_spiel import load_open_spiel
from groundup.games.tic_tac_toe import TicTacToe

__all__ = ["OWN", "find_game"]

OWN: dict[str, Callable[[], Game]] = {"tic_tac_toe": TicTacToe, "connect_four": ConnectFour}
_LIBRARY = "open_spiel/"


@lru_cache
def find_game(name: str, where: str = "recipe.data.game") -> Game:
    """Return a game: groundup's own where it has one of that name, else OpenSpiel's; that library's
    in any case as ``open_spiel/NAME``.

    Raises:
        MissingExtraError: If it is OpenSpiel's, which is not installed.
        RecipeError: If there is no such game, or it is not one that can be searched here.
    """
    # Games of arrays are played many at once, those of objects are not.
    if name in OWN:
        return OWN[name]()
    return load_open_spiel(name.removeprefix(_LIBRARY), where)
