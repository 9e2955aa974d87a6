"""What is wrong with a recipe or an input of a game is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from self_playing import self_play_run

import groundup
from groundup.contracts.games import Judged
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.self_play import SelfPlay
from groundup.games.catalogue import find_game
from groundup.models.policy_value import PolicyValueConfig
from groundup.processors.game import GameConfig, GameReader
from groundup.tasks.policy_value.task import PolicyValueTask

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"fast_simulations": 3}, "fast_simulations has no effect with fast_share: 0"),
    ({"past_selves": 3}, "past_selves has no effect with past_share: 0"),
    (
        {"fast_share": 0.5, "fast_simulations": 9, "search": {"simulations": 4}},
        "fast_simulations is 9, but a full search has 4",
    ),
    ({"search": {"alpha": 0.3}}, "alpha has no effect with algorithm"),
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_settings_of_self_play(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        validate(SelfPlay, {"game": "tic_tac_toe", **settings}, "recipe.data")


BACKBONES: list[tuple[dict[str, Any], str]] = [
    ({"backbone": {"layers": [1]}}, "backbone.name: is required"),
    ({"backbone": {"name": "mlp", "hidden": []}}, "hidden: is empty"),
    ({"backbone": {"name": "mlp", "inputs": 3}}, "inputs: is the policy_value model's"),
    ({"backbone": {"name": "bert"}}, "is bert, which has no feature maps"),
    ({"backbone": {"name": "mlp"}, "policy_channels": 4}, "policy_channels has no effect"),
]


@pytest.mark.parametrize(("settings", "words"), BACKBONES)
def test_backbones(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        validate(PolicyValueConfig, settings, "recipe.model")


def test_parts_that_do_not_fit() -> None:
    reader = GameReader(find_game("tic_tac_toe"))
    other = validate(PolicyValueConfig, {"input_shape": [3, 6, 7]}, "recipe.model")
    with pytest.raises(RecipeError, match=r"is \[3, 6, 7\], but the game has \[3, 3, 3\]"):
        other.complete_from(reader)
    with pytest.raises(RecipeError, match="no game has filled it in"):
        PolicyValueConfig().build()
    with pytest.raises(RecipeError, match="is game, but the data plays none"):
        GameConfig().fit(lambda: iter([Example("a", "", 3)]))
    with pytest.raises(DataError, match="allowed: what to do in a position"):
        PolicyValueTask().encode([Example("a", "", 3)], reader)
    with pytest.raises(RecipeError, match="reads no games, which task policy_value plays"):
        PolicyValueTask().encode([], object())
    assert Judged


@pytest.mark.slow
def test_positions_to_predict(tmp_path: Path) -> None:
    predictor = groundup.load(groundup.train(self_play_run(), runs=tmp_path).folder)
    assert predictor("a1 b2 a2") in {"a3", "b1", "b3", "c1", "c2", "c3"}
    row = predictor.tabulate(["a1 b2"])[0]
    assert sum(row["moves"].values()) == pytest.approx(1)
    with pytest.raises(DataError, match="move 2: is a1, but legal are"):
        predictor("a1 a1")
    with pytest.raises(DataError, match="is the end of a game"):
        predictor("a1 a2 b1 b2 c1")
