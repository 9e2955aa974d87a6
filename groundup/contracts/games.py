"""What a game for two players must be: its rules over many positions at once.

Shape legend: B or G positions, K numbers of a state, A moves, C planes, H rows, W columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import nn

from groundup.contracts.processors import InputProcessor
from groundup.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Evaluate",
    "Found",
    "Game",
    "GameProcessor",
    "Judged",
    "Outcome",
    "Player",
    "PlaysGames",
    "Symmetry",
]


class Found(NamedTuple):
    """What a player thinks of positions.

    Attributes:
        moves: (G,) the move to play.
        policy: (G, A) what a network should learn to think of the moves; sums to 1.
        values: (G,) what the player to move can expect.
        visits: (G, A) how often a search tried each move.
        gains: (G, A) what each move that was tried brings; 0 for others.
        priors: (G, A) what was thought of the moves before a search.
    """

    moves: NDArray[np.int64]
    policy: NDArray[np.float32]
    values: NDArray[np.float32]
    visits: NDArray[np.float32]
    gains: NDArray[np.float32]
    priors: NDArray[np.float32]


Player = Callable[["NDArray[Any]", "NDArray[np.int64]"], Found]
"""Thinks of positions (G, K) that are not over, and of the numbers of the turns (G,), by which
chance is drawn."""

Evaluate = Callable[["NDArray[Any]"], "tuple[NDArray[np.float32], NDArray[np.float32]]"]
"""What is thought of positions (B, K): a logit of each move (B, A), and what the player to move
can expect (B,), from -1, a loss, to 1, a win."""


class Outcome(NamedTuple):
    """Whether games are over (B,), and what the player who would be to move has won (B,): -1 to 1,
    0 where a game goes on."""

    over: NDArray[np.bool_]
    value: NDArray[np.float32]


class Symmetry(NamedTuple):
    """Another view of a board that changes nothing for the players: place p of each new plane is
    the old ``places[p]``, and new move a the old ``moves[a]``."""

    places: NDArray[np.int64]
    moves: NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What somebody who searches far thinks of a position: the target of an example.

    Attributes:
        game: Its name.
        policy: (A,) shares of the moves to choose; all alike among the best, where these are known.
        value: What the player to move can expect.
        exact: Whether it is known by looking at all that can come.
    """

    game: str
    policy: NDArray[np.float32]
    value: float
    exact: bool


class Game(ABC):
    """The rules of a game for two players with perfect information and without chance, whose gains
    add up to 0.

    Attributes:
        name: What recipes call it.
        moves: How many moves there are, legal or not.
        planes: (C, H, W) of what a network reads of a position.
        longest: No game has more moves.
    """

    name: str
    moves: int
    planes: tuple[int, int, int]
    longest: int

    @abstractmethod
    def start(self, count: int) -> NDArray[Any]:
        """Return so many first positions."""

    @abstractmethod
    def legal(self, states: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which moves are legal (B, A), of games that are not over."""

    @abstractmethod
    def play(self, states: NDArray[Any], moves: NDArray[np.int64]) -> NDArray[Any]:
        """Return the positions after legal moves (B,)."""

    @abstractmethod
    def outcome(self, states: NDArray[Any]) -> Outcome:
        """Return how games stand."""

    @abstractmethod
    def player(self, states: NDArray[Any]) -> NDArray[np.int64]:
        """Return who is to move (B,): 0, who began, or 1."""

    @abstractmethod
    def encode(self, states: NDArray[Any]) -> NDArray[np.float32]:
        """Return what a network reads (B, C, H, W), from the view of the player to move."""

    @abstractmethod
    def keys(self, states: NDArray[Any]) -> list[Any]:
        """Return a hashable value of each position; equal ones go on alike."""

    @abstractmethod
    def board(self, state: NDArray[Any]) -> list[str]:
        """Return a position (K,) as rows of one character a place: x began, o follows, a dot is
        empty."""

    @abstractmethod
    def move_name(self, state: NDArray[Any], move: int) -> str:
        """Return what players call a move in a position (K,)."""

    def symmetries(self) -> Sequence[Symmetry]:
        """Return the views of a board that are alike; the first changes nothing."""
        places = np.arange(self.planes[1] * self.planes[2])
        return (Symmetry(places, np.arange(self.moves)),)

    def replay(self, moves: Sequence[int]) -> NDArray[Any]:
        """Return the position (1, K) after moves from the start.

        Raises:
            DataError: If one is illegal, or the game was over before.
        """
        states = self.start(1)
        for number, move in enumerate(moves, 1):
            if move not in self.legal_names(states[0]).values():
                raise self.illegal(states[0], f"move {number}", str(move))
            states = self.play(states, np.array([move]))
        return states

    def read(self, text: str) -> NDArray[Any]:
        """Return the position (1, K) after moves by name, from the start, with blanks between.

        Raises:
            DataError: If one is illegal, or the game was over before.
        """
        states = self.start(1)
        for number, word in enumerate(text.split(), 1):
            move = self.read_move(states[0], word, f"move {number}")
            states = self.play(states, np.array([move]))
        return states

    def read_move(self, state: NDArray[Any], word: str, where: str = "the move") -> int:
        """Return a legal move of a position (K,) by its name.

        Raises:
            DataError: If it is no legal one.
        """
        names = self.legal_names(state)
        if word.casefold() not in names:
            raise self.illegal(state, where, word)
        return names[word.casefold()]

    def legal_names(self, state: NDArray[Any]) -> dict[str, int]:
        """Return the legal moves of a position (K,) by name in lower case; none of a game that is
        over."""
        if self.outcome(state[None]).over[0]:
            return {}
        legal = np.flatnonzero(self.legal(state[None])[0])
        return {self.move_name(state, int(move)).casefold(): int(move) for move in legal}

    def illegal(self, state: NDArray[Any], where: str, word: str) -> DataError:
        """Return the error of a move that is not legal in a position (K,)."""
        names = list(self.legal_names(state))
        if not names:
            return DataError(where, f"is {word}, but the game is over", "Leave it out")
        shown = ", ".join(names[:20]) + ", ..." * (len(names) > 20)
        return DataError(where, f"is {word}, but legal are: {shown}", "Choose one of these")


class GameProcessor(InputProcessor):
    """What reads positions, as texts of moves: the game that a model plays travels with it."""

    game: Game


@runtime_checkable
class PlaysGames(Protocol):
    """A task whose model plays a game."""

    @property
    def simulations(self) -> int:
        """Of a search before each move."""

    def player(self, model: nn.Module, processor: GameProcessor, simulations: int) -> Player:
        """Return the model as a player; with 0 simulations it plays what it first thinks of."""
