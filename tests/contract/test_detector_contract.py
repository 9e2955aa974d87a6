"""What every registered detector keeps: gradients everywhere, pictures that do not mix, weights
that reload."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.testing import check_model

SHAPE = {"input_shape": [3, 16, 16], "outputs": 3}
RESNET = {"name": "resnet", "layers": [1, 1], "width": 4, "stem": "small"}
DETECTORS: dict[str, list[dict[str, Any]]] = {
    "detector": [
        {"backbone": RESNET, "strides": [2, 4], "width": 8, **SHAPE},
        {
            "backbone": {"name": "convnext", "layers": [1, 1], "widths": [4, 6], "patch": 2},
            "strides": [2, 4, 8],
            "width": 8,
            "neck": "fpn",
            "norm": "group",
            "bins": 1,
            **SHAPE,
        },
        {
            "backbone": {"name": "vit", "patch": 4, "layers": 1, "width": 12, "heads": 2},
            "strides": [2, 4, 8],
            "width": 8,
            "norm": "group",
            "head_layers": 0,
            **SHAPE,
        },
    ],
}


@pytest.mark.parametrize(
    ("name", "index"),
    [(name, index) for name in DETECTORS for index in range(len(DETECTORS[name]))],
)
def test_detectors_keep_their_contract(name: str, index: int) -> None:
    torch.manual_seed(0)
    settings = validate(lookup("model", name), DETECTORS[name][index], "recipe.model")
    inputs = {"inputs": torch.randn(6, 3, 16, 16)}
    check_model(settings, inputs, untrained=("key.bias",))
