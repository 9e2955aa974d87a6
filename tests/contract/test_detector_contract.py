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
    "detr": [
        {"backbone": RESNET, "width": 16, "heads": 2, "mlp_width": 20, "queries": 5, **SHAPE},
        {
            "backbone": {"name": "vit", "patch": 4, "layers": 1, "width": 12, "heads": 2},
            "width": 16,
            "heads": 4,
            "mlp_width": 20,
            "queries": 5,
            "encoder_layers": 0,
            "head": "softmax",
            "norm_between": True,
            "earlier_losses": False,
            "dropout": 0.1,
            **SHAPE,
        },
    ],
    "rt_detr": [
        {
            "backbone": {**RESNET, "layers": [1, 1, 1], "shortcut": "pooled"},
            "encoder_width": 12,
            "encoder_mlp_width": 16,
            "width": 8,
            "mlp_width": 16,
            "heads": 2,
            "queries": 6,
            **SHAPE,
        },
        {
            "backbone": {**RESNET, "stem": "deep"},
            "maps": 1,
            "encoder_width": 8,
            "encoder_heads": 2,
            "encoder_layers": 0,
            "expansion": 1.0,
            "width": 8,
            "heads": 4,
            "decoder_layers": 1,
            "points": 2,
            "queries": 4,
            **SHAPE,
        },
    ],
}
# A bias of the keys shifts all scores of a query alike. The queries of DETR begin as zeros, and so
# do the biases of values: until these have moved, the first block has nothing to pass on.
UNTRAINED = (
    "key.bias",
    "decoder.0.attention.query.weight",
    "decoder.0.attention.query.bias",
    "decoder.0.attention.key.weight",
    "decoder.0.attention.value.weight",
    "decoder.0.attention.output.weight",
    "decoder.0.attention_norm.weight",
)


@pytest.mark.parametrize(
    ("name", "index"),
    [(name, index) for name in DETECTORS for index in range(len(DETECTORS[name]))],
)
def test_detectors_keep_their_contract(name: str, index: int) -> None:
    torch.manual_seed(0)
    settings = validate(lookup("model", name), DETECTORS[name][index], "recipe.model")
    inputs = {"inputs": torch.randn(6, 3, 16, 16)}
    check_model(settings, inputs, untrained=UNTRAINED)
