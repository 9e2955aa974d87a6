"""The detector: where its places are, and which settings do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.models.detector import Detector, DetectorConfig

SMALL: dict[str, Any] = {
    "backbone": {"name": "resnet", "layers": [1, 1, 1], "width": 4, "stem": "small"},
    "strides": [2, 4],
    "width": 8,
    "input_shape": [3, 16, 24],
    "outputs": 5,
}


def built(**settings: Any) -> Detector:
    torch.manual_seed(0)
    return validate(DetectorConfig, {**SMALL, **settings}, "recipe.model").build()


def test_places_are_the_middles_of_what_they_see() -> None:
    found = built()(torch.zeros(2, 3, 16, 24))
    assert found.logits.shape == (2, 8 * 12 + 4 * 6, 5)
    assert found.distances.shape == (2, 8 * 12 + 4 * 6, 4, 8)
    assert found.points[:2].tolist() == [[1, 1], [3, 1]]
    assert found.points[12].tolist() == [1, 3]
    assert found.points[-1].tolist() == [22, 14]
    assert found.strides.tolist() == [2.0] * 96 + [4.0] * 24
    # At the start hardly any place shows a thing.
    assert float(found.logits.detach().sigmoid().mean()) == pytest.approx(0.01, abs=0.005)


def test_pictures_of_other_sizes_have_other_places() -> None:
    model = built().eval()
    assert model(torch.zeros(1, 3, 32, 24)).logits.shape[1] == 16 * 12 + 8 * 6


def test_a_distance_without_bins_is_positive() -> None:
    found = built(bins=1)(torch.randn(2, 3, 16, 24))
    assert found.distances.shape[3] == 1
    assert (found.distances > 0).all()


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = built()
    for parameter in model.blocks.parameters():
        parameter.requires_grad = False
    before = {name: each.clone() for name, each in model.blocks.named_buffers()}
    other = model.neck.smooth[0][1].running_mean.clone()
    model.train()
    model(torch.randn(2, 3, 16, 24))
    assert all(torch.equal(each, before[n]) for n, each in model.blocks.named_buffers())
    assert not torch.equal(model.neck.smooth[0][1].running_mean, other)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strides": [2, 6]}, "each is twice the one before"),
        ({"strides": [2, 4, 8, 16]}, "no whole number of 16"),
        ({"backbone": {"name": "resnet"}, "strides": [2, 4]}, "no whole number of 32"),
        ({"strides": [1], "backbone": SMALL["backbone"] | {"stem_pool": True}}, "finest map"),
        ({"backbone": {"name": "gpt"}}, "has no feature maps"),
        ({"backbone": {}}, "is required and missing"),
        ({"width": 12}, "multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        built(**settings)


def test_the_recipe_of_stamps_is_small() -> None:
    backbone = {"name": "resnet", "width": 24, "layers": [2, 2, 2, 1]}
    shape = {"backbone": backbone, "strides": [8, 16, 32], "width": 64}
    config = validate(DetectorConfig, shape | {"input_shape": [3, 128, 128], "outputs": 9}, "model")
    assert sum(each.numel() for each in config.build().parameters()) <= 1_500_000
