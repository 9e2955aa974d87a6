"""Games of self-play a second: groundup against OpenSpiel's AlphaZero in Python, and against a plain
Python search over the same network.

Run ``python benchmarks/self_play.py [--run RUN] [--games 256] [--other-games 2] [--rounds 3]
[--simulations 24] [--threads 1] [--peer PYTHON] [--save]``. Ways take turns, round by round, and
each plays Connect Four to the end, with as many simulations a move and a residual network of the
same size; medians over the rounds are printed. "CPU" is the seconds of the process, which a busy
machine changes less. Nothing is learned meanwhile: games are what is counted.

Ways: groundup with Gumbel search and with PUCT, all games of a round at the same time; OpenSpiel's
own Python search (``MCTSBot`` with PUCT), one position after the other, over groundup's network,
with the cache of OpenSpiel's evaluator; and with ``--peer``, the Python of an environment that has
open_spiel, jax, flax, optax, chex and orbax-checkpoint, OpenSpiel's AlphaZero as it is, with its own
network in JAX (peers/open_spiel_games.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup import api
from groundup.contracts.games import Evaluate, Game
from groundup.games.catalogue import find_game
from groundup.games.network import thoughts_of
from groundup.games.remembered import Remembered
from groundup.games.self_play import PlaySettings, SearchSettings, play_round
from groundup.games.tree import masked, softmax
from groundup.machine.devices import describe_machine
from groundup.models.policy_value import PolicyValueConfig

__all__ = ["main"]

LAYERS = 3
WIDTH = 64
# games, moves, seconds, seconds of the processor
Played = tuple[int, int, float, float]
Way = Callable[[int], Played]


def main() -> None:
    """Measure all ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run that plays Connect Four; random weights")
    parser.add_argument("--games", type=int, default=256)
    parser.add_argument("--other-games", type=int, default=2, help="a round, of the other ways")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulations", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--save", type=Path, help="write what was measured there, as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    ways = _ways(asked)
    found: dict[str, list[Played]] = {name: [] for name in ways}
    for round_number in range(asked.rounds):
        for name, way in ways.items():
            found[name].append(way(round_number))
            games, moves, wall, cpu = found[name][-1]
            line = f"{name}: {games} games, {moves} moves, {wall:.1f} s, {cpu:.1f} CPU s\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    _print(found)
    if asked.save:
        settings = {name: str(value) for name, value in vars(asked).items()}
        all_of_it = {"machine": describe_machine(), "settings": settings, "played": found}
        asked.save.write_text(json.dumps(all_of_it, indent=1) + "\n", encoding="utf-8")


def _ways(asked: argparse.Namespace) -> dict[str, Way]:
    game = find_game("connect_four")
    if asked.run:
        model = api.load(asked.run, "last").model
    else:
        torch.manual_seed(0)
        backbone = {"name": "resnet", "layers": [LAYERS], "width": WIDTH, "stem": "small"}
        model = PolicyValueConfig(
            backbone=backbone, policy_channels=16, input_shape=game.planes, outputs=game.moves
        ).build()

    def batched(algorithm: str) -> Way:
        search = SearchSettings(algorithm=algorithm, simulations=asked.simulations)

        def play(round_number: int) -> Played:
            numbers = np.arange(asked.games) + round_number * asked.games
            begin = (time.perf_counter(), time.process_time())
            # The copy with batch norms folded is made again in each round of training, too.
            thinks = Remembered(game, thoughts_of(model, game))
            played = play_round(game, PlaySettings(search), thinks, [], 0, numbers)
            return _measured(begin, asked.games, len(played.states))

        return play

    ways = {f"groundup, {name}": batched(name) for name in ("gumbel", "puct")}
    ways["OpenSpiel's search, the same network"] = _one_by_one(
        game, thoughts_of(model, game), asked.other_games, asked.simulations
    )
    if asked.peer:
        ways["OpenSpiel's AlphaZero, its network"] = _peer(asked)
    return ways


def _measured(begin: tuple[float, float], games: int, moves: int) -> Played:
    wall, cpu = begin
    return games, moves, time.perf_counter() - wall, time.process_time() - cpu


def _one_by_one(game: Game, evaluate: Evaluate, games: int, simulations: int) -> Way:
    """Return OpenSpiel's search over a network of groundup's."""
    import pyspiel
    from open_spiel.python.algorithms import mcts
    from open_spiel.python.utils import lru_cache

    class Evaluator(mcts.Evaluator):  # type: ignore[misc]
        def __init__(self) -> None:
            self.cache = lru_cache.LRUCache(2**16)

        def _think(self, state: Any) -> tuple[float, Any]:
            moves = tuple(state.history())

            def ask() -> tuple[float, Any]:
                states = game.replay(moves)
                logits, values = evaluate(states)
                return float(values[0]), softmax(masked(logits, game.legal(states)))[0]

            thought: tuple[float, Any] = self.cache.make(moves, ask)
            return thought

        def evaluate(self, state: Any) -> Any:
            value = self._think(state)[0]
            own = 1 if state.current_player() == 0 else -1
            return np.array([own * value, -own * value])

        def prior(self, state: Any) -> list[tuple[int, float]]:
            shares = self._think(state)[1]
            return [(move, shares[move]) for move in state.legal_actions()]

    theirs = pyspiel.load_game("connect_four")

    def play(round_number: int) -> Played:
        begin = (time.perf_counter(), time.process_time())
        random = np.random.RandomState(round_number)
        bot = mcts.MCTSBot(
            theirs,
            1.5,
            simulations,
            Evaluator(),
            solve=False,
            random_state=random,
            child_selection_fn=mcts.SearchNode.puct_value,
            dirichlet_noise=(0.25, 1.0),
        )
        moves = 0
        for _ in range(games):
            state = theirs.new_initial_state()
            while not state.is_terminal():
                root = bot.mcts_search(state)
                tries = np.array([child.explore_count for child in root.children], float)
                move = root.children[int(random.choice(len(tries), p=tries / tries.sum()))].action
                if len(state.history()) >= 12:
                    move = root.best_child().action
                state.apply_action(move)
                moves += 1
        return _measured(begin, games, moves)

    return play


def _peer(asked: argparse.Namespace) -> Way:
    script = Path(__file__).parent / "peers" / "open_spiel_games.py"

    def play(round_number: int) -> Played:
        numbers = (round_number, asked.other_games, asked.simulations, LAYERS, WIDTH)
        command = [str(asked.peer), str(script), *map(str, numbers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        games, moves, wall, cpu = json.loads(done.stdout.splitlines()[-1])
        return games, moves, wall, cpu

    return play


def _print(found: dict[str, list[Played]]) -> None:
    rates = {
        name: (
            statistics.median(games / wall for games, _, wall, _ in rounds),
            statistics.median(games / cpu for games, _, _, cpu in rounds),
            statistics.median(moves / cpu for _, moves, _, cpu in rounds),
        )
        for name, rounds in found.items()
    }
    first = next(iter(rates.values()))
    # Games differ in length by who plays them: of moves the ratio says more.
    heading = ("games/s", "games/CPU s", "moves/CPU s", "by games", "by moves")
    sys.stdout.write(f"{'way':<40}" + "".join(f"{word:>13}" for word in heading) + "\n")
    for name, (games, games_cpu, moves_cpu) in rates.items():
        by_games = f"{first[1] / games_cpu:.1f} x"
        by_moves = f"{first[2] / moves_cpu:.1f} x"
        sys.stdout.write(
            f"{name:<40}{games:13.2f}{games_cpu:13.2f}{moves_cpu:13.1f}"
            f"{by_games:>13}{by_moves:>13}\n"
        )


if __name__ == "__main__":
    main()
