"""How well a model plays, in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from self_playing import self_play_run

import groundup
from groundup.games.catalogue import find_game
from groundup.reports.diagnose import verdict_of
from groundup.tasks.policy_value.evaluation import _is_won_at_once, _share
from groundup.tasks.policy_value.task import PolicyValueTask


@pytest.mark.parametrize("name", ["tic_tac_toe", "open_spiel/tic_tac_toe"])
def test_positions_in_which_a_move_wins_at_once(name: str) -> None:
    if "/" in name:
        pytest.importorskip("pyspiel")
    game = find_game(name)
    games = ([], [0, 4, 3], [0, 4, 3, 1], [0, 1, 3, 4, 8], [0, 1, 3])
    states = np.concatenate([game.replay(moves) for moves in games])
    # In the third x has two in the first column, in the fourth o has two in the second one.
    assert _is_won_at_once(game, states).tolist() == [False, False, True, True, False]


def test_shares_have_intervals() -> None:
    assert _share(0, 0) == "none"
    assert _share(0, 100) == "0.0% (0.0% to 3.7%)"
    assert _share(195, 200) == "97.5% (94.3% to 98.9%)"


def test_games_are_chosen_by_moves_and_not_by_loss() -> None:
    assert PolicyValueTask.default_settings == {"checkpoints.best_metric": "move_accuracy"}


@pytest.mark.slow
def test_a_run_says_how_well_it_plays(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = groundup.train(self_play_run(), runs=tmp_path_factory.mktemp("runs"))
    assert run.recipe.checkpoints.best_metric == "move_accuracy"
    card = run.read_json("data_card.json")
    assert card is not None
    assert card["examples made by the weights"] is True
    verdict = verdict_of(run.folder)
    assert "losses of different steps do not compare. On held-out examples move accur" in verdict
