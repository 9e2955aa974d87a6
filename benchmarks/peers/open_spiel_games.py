"""Games of Connect Four as OpenSpiel's AlphaZero in Python plays them against itself, with its own
network in JAX. Run by ``self_play.py``.

``python open_spiel_games.py SEED GAMES SIMULATIONS LAYERS WIDTH`` prints one line of JSON: games,
moves, seconds, and seconds of the processor. The first game, in which JAX compiles, is not counted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

# Before JAX is imported: one thread, as the others have.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

__all__ = ["main"]


class _Silent:
    """A logger, as the loop expects one."""

    def print(self, *words: Any) -> None:
        """Say nothing."""

    opt_print = print


def main() -> None:
    """Play games and print how long they took."""
    import pyspiel
    from open_spiel.python.algorithms import mcts
    from open_spiel.python.algorithms.alpha_zero import alpha_zero, utils
    from open_spiel.python.algorithms.alpha_zero import evaluator as evaluators

    seed, games, simulations, layers, width = map(int, sys.argv[1:])
    np.random.seed(seed)
    game = pyspiel.load_game("connect_four")
    with tempfile.TemporaryDirectory() as folder:
        model = utils.api_selector("nnx").Model.build_model(
            "resnet",
            game.observation_tensor_shape(),
            game.num_distinct_actions(),
            width,
            layers,
            1e-4,
            1e-3,
            folder,
        )
    evaluator = evaluators.AlphaZeroEvaluator(game, model)
    bots = [
        mcts.MCTSBot(
            game,
            1.5,
            simulations,
            evaluator,
            solve=False,
            dirichlet_noise=(0.25, 1.0),
            child_selection_fn=mcts.SearchNode.puct_value,
            dont_return_chance_node=True,
        )
        for _ in range(2)
    ]

    def play(number: int) -> int:
        played = alpha_zero._play_game(_Silent(), number, game, bots, 1.0, 12)
        return len(played.states)

    play(0)
    wall = time.perf_counter()
    cpu = time.process_time()
    moves = sum(play(number) for number in range(1, games + 1))
    found = (games, moves, time.perf_counter() - wall, time.process_time() - cpu)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
