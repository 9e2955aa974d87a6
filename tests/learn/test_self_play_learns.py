"""Games against itself: tic-tac-toe is learned better than a search by random games plays it, and a
game of OpenSpiel is learned by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup import api
from groundup.contracts.games import Player
from groundup.games.exhaustive import worst_results
from groundup.games.labelled import solved_game
from groundup.games.players import Rollouts

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "recipes" / "demo" / "play.yaml"
QUICK: dict[str, Any] = {
    "machine.threads": 1,
    "machine.precision": "fp32",
    "machine.device": "cpu",
    "evaluation.every": 100,
}


def count_given_away(player: Player) -> int:
    """Return from how many positions of tic-tac-toe a player gets less than it could."""
    solved = solved_game("tic_tac_toe")
    assert solved is not None

    def moves(positions: np.ndarray) -> np.ndarray:
        return player(positions, np.zeros(len(positions), np.int64)).moves

    found, perfect, _ = worst_results(solved, moves)
    return int((found < perfect).sum())


def test_a_network_beats_searches_by_random_games(tmp_path: Path) -> None:
    run = api.train(RECIPE, QUICK | {"training.steps": 1000}, runs=tmp_path)
    predictor = groundup.load(run.folder, "last")
    game = predictor.processor.game
    alone = predictor.task.player(predictor.model, predictor.processor, 0)
    searching = predictor.task.player(predictor.model, predictor.processor, 25)
    # A network that does not look ahead, next to 50 random games a move; and next to 100 random
    # games a quarter as many simulations.
    assert count_given_away(alone) < count_given_away(Rollouts(game, 50))
    assert count_given_away(searching) < count_given_away(Rollouts(game, 100)) / 2


def test_a_game_of_open_spiel_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("pyspiel")
    recipe = {
        "name": "hex",
        "model": {"name": "policy_value", "backbone": {"name": "mlp", "hidden": [64, 64]}},
        "task": {"name": "policy_value", "simulations": 16, "opponents": [20], "match_games": 40},
        "processor": "game",
        "data": {
            "name": "self_play",
            "game": "hex(board_size=3)",
            "games": 32,
            "every": 20,
            "openings": 2,
            "held_out": 60,
            "search": {"simulations": 12},
        },
        "optim": {"lr": 3e-3},
        "training": {"batch_size": 64, "steps": 200},
    }
    run = api.train(recipe, QUICK, runs=tmp_path)
    metrics = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    # Random moves would win half of the games of Hex: somebody always wins.
    assert metrics["win_rate_random"] > 0.8
    assert metrics["win_rate_rollouts_20"] > 0.25
