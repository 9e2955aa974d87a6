"""Positions of a game as planes.

Shape legend: N positions, C planes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.contracts.games import Game, GameProcessor, Judged
from groundup.contracts.processors import ProcessorConfig
from groundup.core.errors import RecipeError
from groundup.core.registry import processor
from groundup.core.values import Batch, Example
from groundup.games.catalogue import find_game
from groundup.processors.saved_files import saved_settings, write_json

__all__ = ["GameConfig", "GameReader"]


class GameReader(GameProcessor):
    """Plays moves given as text on the board, and shows it as planes."""

    def __init__(self, game: Game) -> None:
        self.game = game

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.game.planes

    def states(self, inputs: Sequence[str]) -> NDArray[Any]:
        """Return the positions after moves given by name.

        Raises:
            DataError: If a move is illegal.
        """
        return np.concatenate([self.game.read(text) for text in inputs])

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) of positions given as texts of moves.

        Raises:
            DataError: If a move is illegal.
        """
        return {"inputs": torch.from_numpy(self.game.encode(self.states(inputs)))}

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        # The name alone: the rules are code, and come with the package.
        write_json(folder / "processor.json", {"name": "game", "game": self.game.name})


@processor("game")
class GameConfig(ProcessorConfig):
    """The board of the game that the data plays."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"

    def fit(self, texts: Callable[[], Iterator[Example]]) -> GameReader:
        """Return the processor of the examples' game.

        Raises:
            RecipeError: If they are of none.
        """
        first = next(texts(), None)
        if first is None or not isinstance(first.target, Judged):
            raise RecipeError(
                "recipe.processor", "is game, but the data plays none", "Use data: self_play"
            )
        return GameReader(find_game(first.target.game))

    @classmethod
    def load(cls, folder: Path) -> GameReader:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is missing or damaged.
        """
        with saved_settings(folder) as saved:
            return GameReader(find_game(str(saved["game"]), str(folder / "processor.json")))
