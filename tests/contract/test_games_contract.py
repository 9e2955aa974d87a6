"""What networks that play games keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.core.settings import validate
from groundup.models.policy_value import PolicyValueConfig
from groundup.testing import check_model

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
