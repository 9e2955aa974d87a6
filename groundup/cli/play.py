"""Playing a game against a run in a terminal, or watching it play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from groundup import api
from groundup.cli.streams import wrong_encoding
from groundup.contracts.games import Found, Game, GameProcessor, Player, PlaysGames
from groundup.core.errors import DataError, GroundupError, RunError
from groundup.games.players import RandomPlayer, Rollouts, play_match
from groundup.inference.predictor import Predictor

__all__ = ["play_against_run", "watch_run"]

_SHOWN = 5  # moves of which it is said what the model thinks


def _player(predictor: Predictor, simulations: int | None) -> tuple[Game, Player]:
    """Return the game of a run, and the run as a player.

    Raises:
        RunError: If it plays none.
    """
    task = predictor.task
    processor = predictor.processor
    if not isinstance(task, PlaysGames) or not isinstance(processor, GameProcessor):
        raise RunError(
            str(predictor.run.folder),
            f"is of task {predictor.task.registered_name}, which plays no games",
            "Choose a run of task policy_value, such as that of recipes/demo/play.yaml",
        )
    tried = task.simulations if simulations is None else simulations
    return processor.game, task.player(predictor.model, processor, tried)


def play_against_run(predictor: Predictor, simulations: int | None, *, second: bool) -> None:
    """Play games until an empty line, Ctrl-D or Ctrl-C.

    Args:
        predictor: The run.
        simulations: Of its search; None: as its task says.
        second: Whether the user follows.
    """
    game, player = _player(predictor, simulations)
    console = Console(highlight=False, markup=False)
    console.print(
        f"{predictor.run.label} at step {predictor.step} plays {game.name}. ? shows what it thinks,"
        " /new starts again, an empty line ends."
    )
    # Who begins has number 0.
    user = int(second)
    states = game.start(1)
    while True:
        _show(console, game, states)
        if game.outcome(states).over[0]:
            console.print(_ended(game, states, user))
            states = game.start(1)
            continue
        if game.player(states)[0] != user:
            found = player(states, np.zeros(1, np.int64))
            name = game.move_name(states[0], int(found.moves[0]))
            console.print(f"It plays {name} and expects {found.values[0]:+.2f}.")
            states = game.play(states, found.moves)
            continue
        word = _read(console, game, states)
        if not word:
            return
        if word == "?":
            console.print(_thoughts(game, states, player(states, np.zeros(1, np.int64))))
        elif word == "/new":
            states = game.start(1)
        else:
            states = _played(console, game, states, word)


def _read(console: Console, game: Game, states: NDArray[Any]) -> str:
    names = ", ".join(list(game.legal_names(states[0]))[:20])
    try:
        return console.input(f"Your move ({names}): ").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return ""
    except UnicodeDecodeError as error:
        raise wrong_encoding(error) from None


def _played(console: Console, game: Game, states: NDArray[Any], word: str) -> NDArray[Any]:
    """Return the position after the user's move; an illegal one is told and changes nothing."""
    try:
        move = game.read_move(states[0], word)
    except DataError as error:
        console.print(str(error))
        return states
    return game.play(states, np.array([move]))


def _show(console: Console, game: Game, states: NDArray[Any]) -> None:
    rows = game.board(states[0])
    # A letter is half as wide as it is high: with blanks the board is about square.
    square = set("".join(rows)) <= set(".xo")
    console.print("\n".join(" ".join(row) if square else row for row in rows))


def _ended(game: Game, states: NDArray[Any], user: int) -> str:
    value = float(game.outcome(states).value[0])
    if game.player(states)[0] != user:
        value = -value
    return {1: "You win.", 0: "A draw.", -1: "It wins."}[int(np.sign(value))]


def _thoughts(game: Game, states: NDArray[Any], found: Found) -> str:
    """Return what the model would play in the user's place."""
    # The likeliest first; of equal ones the first by number.
    order = np.argsort(-found.policy[0], kind="stable")
    lines = [f"For you it expects {found.values[0]:+.2f}. It would play:"]
    for move in order[:_SHOWN]:
        if found.policy[0, move] > 0:
            name = game.move_name(states[0], int(move))
            lines.append(
                f"  {name}: {found.policy[0, move]:.0%}, before its search"
                f" {found.priors[0, move]:.0%}; tried {found.visits[0, move]:.0f} times"
            )
    return "\n".join(lines)


def watch_run(
    predictor: Predictor, against: str, simulations: int | None, games: int, seed: int
) -> None:
    """Let a run play, and show the last game.

    Args:
        predictor: The run.
        against: ``random``, a number of random games a move, or another run.
        simulations: Of the runs' searches; None: as their tasks say.
        games: How many, begun in turn.
        seed: Decides what is drawn.

    Raises:
        GroundupError: If the other one is none of these, or plays another game.
    """
    game, player = _player(predictor, simulations)
    # Opponents that draw their moves need no drawn beginnings.
    openings = 0
    if against == "random":
        other: Player = RandomPlayer(game, seed)
    elif against.isdecimal() and int(against):
        other = Rollouts(game, int(against), seed)
    elif Path(against).is_dir():
        other_game, other = _player(api.load(against), simulations)
        if other_game.name != game.name:
            raise GroundupError(
                "--against",
                f"{against} plays {other_game.name}, but {predictor.run.folder} {game.name}",
                "Choose runs of one game",
            )
        # Two players without chance would repeat one game.
        openings = min(4, game.longest // 3)
    else:
        raise GroundupError(
            "--against",
            f"is {against}; allowed: random, a number of random games a move, or another run",
            "Choose one of these",
        )
    match = play_match(game, player, other, games, openings=openings, seed=seed)
    console = Console(highlight=False, markup=False)
    states = game.start(1)
    for move in match.moves[-1]:
        console.print(f"\n{game.move_name(states[0], move)}")
        states = game.play(states, np.array([move]))
        _show(console, game, states)
    console.print(
        f"\nOf {games} games it won {match.count(1)}, drew {match.count(0)} and lost"
        f" {match.count(-1)} against {against}."
    )
