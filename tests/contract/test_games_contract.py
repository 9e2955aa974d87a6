"""What networks that play games keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from self_playing import self_play_run

from groundup.core.settings import validate
from groundup.models.policy_value import PolicyValueConfig
from groundup.testing import check_data, check_model, check_task

GAMES: dict[str, list[dict[str, Any]]] = {
    "policy_value": [
        {"backbone": {"name": "mlp", "hidden": [12, 8]}, "value_width": 6},
        {
            "backbone": {"name": "resnet", "layers": [1], "width": 4, "stem": "small"},
            "policy_channels": 3,
            "value_width": 6,
        },
        {"backbone": {"name": "vit", "patch": 1, "layers": 1, "width": 8, "heads": 2}},
    ]
}


@pytest.mark.parametrize("settings", GAMES["policy_value"])
def test_contract(settings: dict[str, Any]) -> None:
    sizes = {"input_shape": [3, 4, 5], "outputs": 7}
    config = validate(PolicyValueConfig, settings | sizes, "recipe.model")
    # Not all zeros of a ReLU: the value's hidden layer is narrow.
    torch.manual_seed(2)
    check_model(config, {"inputs": torch.randn(16, 3, 4, 5)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"past_share": 0.5, "past_every": 1},
        {"game": "connect_four", "games": 4, "held_out": 8, "search": {"simulations": 2}},
    ],
)
def test_self_play_keeps_what_a_source_promises(settings: dict[str, Any]) -> None:
    # An epoch is as many samples as are kept, and what is checked reads beyond one.
    check_data(self_play_run(buffer=100, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [{"name": "mlp", "hidden": [16]}, {"name": "vit", "patch": 1}])
def test_self_play_keeps_what_a_task_promises(backbone: dict[str, Any]) -> None:
    recipe = self_play_run()
    check_task(recipe | {"model": {"name": "policy_value", "backbone": backbone}})
