"""Feature maps of the models that can be a trunk: their sizes, and what becomes of a wrong one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.models.trunk import trunk_settings

TRUNKS: list[dict[str, Any]] = [
    {"name": "resnet", "width": 4, "layers": [1, 2, 1]},
    {"name": "resnet", "width": 4, "layers": [1, 1], "stem": "small", "bottleneck": True},
    {"name": "convnext", "widths": [4, 6, 8], "layers": [1, 2, 1], "patch": 2},
    {"name": "vit", "patch": 8, "layers": 1, "width": 12, "heads": 3},
    {"name": "vit", "patch": 8, "layers": 1, "width": 12, "heads": 3, "pooling": "mean"},
]


@pytest.mark.parametrize("section", TRUNKS)
def test_maps_are_as_large_as_said(section: dict[str, Any]) -> None:
    trunk = trunk_settings(section, (3, 32, 64), "detector")
    maps = trunk.read_maps(trunk.build().eval(), torch.randn(2, 3, 32, 64))
    sizes = [(2, size.width, 32 // size.stride, 64 // size.stride) for size in trunk.map_sizes()]
    assert [tuple(found.shape) for found in maps] == sizes


@pytest.mark.parametrize("section", TRUNKS[:3])
def test_the_last_map_is_what_the_classifier_reads(section: dict[str, Any]) -> None:
    torch.manual_seed(0)
    trunk = trunk_settings(section, (3, 32, 32), "detector")
    model = trunk.build().eval()
    inputs = torch.randn(2, 3, 32, 32)
    pooled = trunk.read_maps(model, inputs)[-1].mean((2, 3))
    if section["name"] == "convnext":
        pooled = model.norm(pooled)
    torch.testing.assert_close(pooled, model.features(inputs))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"width": 4}, "required and missing"),
        ({"name": "mlp"}, "has no feature maps"),
        ({"name": "resnet", "outputs": 3}, "is the detector's"),
        ({"name": "resnet", "widht": 3}, "did you mean 'width'"),
        ({"name": "resnett"}, "there is no model 'resnett'"),
    ],
)
def test_what_is_no_trunk_is_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        trunk_settings(section, None, "detector")
