"""What every model that makes pictures keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_models_contract import WITHOUT_GRADIENT
from torch import Tensor

from groundup.contracts.generators import PictureGenerator
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.tasks.generate_images.mean_flow import slope_along
from groundup.testing import check_model

WORDS = {"vocabulary_size": 11, "width": 8}
TRANSFORMER = {"name": "transformer_classifier", **WORDS, "layers": 1, "context_length": 5}
ENCODER = {"name": "bert", **WORDS, "layers": 1, "heads": 2, "context_length": 5}
ENCODER |= {"head": "none", "pooler": "none"}
GENERATORS: dict[str, list[dict[str, Any]]] = {
    "unet": [
        {"widths": [8, 16], "groups": 4, "head_width": 8, "dropout": 0.1, "classes": 3},
        {
            "widths": [4, 8],
            "layers": 2,
            "patch": 2,
            "attention_side": 0,
            "groups": 2,
            "head_width": 4,
        },
        {"widths": [4, 8], "groups": 2, "head_width": 4, "text": TRANSFORMER},
    ],
    "dit": [
        {"patch": 2, "layers": 2, "width": 16, "heads": 2, "dropout": 0.1, "classes": 3},
        {"patch": 4, "layers": 1, "width": 12, "heads": 3, "mlp_width": 10},
        {"patch": 4, "layers": 1, "width": 12, "heads": 3, "text": ENCODER},
    ],
}
CASES = [(name, index) for name in GENERATORS for index in range(len(GENERATORS[name]))]


def settings_of(name: str, index: int, channels: int = 1) -> Any:
    settings = {**GENERATORS[name][index], "input_shape": [channels, 8, 8]}
    return validate(lookup("model", name), settings, "recipe.model")


def told(config: Any, channels: int = 1) -> dict[str, Tensor]:
    """Return four pictures on their way with all that a model is told."""
    drawn = torch.Generator().manual_seed(0)
    inputs = {
        "inputs": torch.randn(4, channels, 8, 8, generator=drawn),
        "times": torch.rand(4, generator=drawn) / 2,
        "spans": torch.rand(4, generator=drawn) / 2,
    }
    if config.text is not None:
        inputs["text"] = torch.randint(0, 11, (4, 5), generator=drawn)
        inputs["text_lengths"] = torch.tensor([5, 3, 0, 1])
    return inputs | ({"classes": torch.tensor([0, 1, 2, 3])} if config.classes else {})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index"), CASES)
def test_generators_keep_their_contract(name: str, index: int) -> None:
    config = settings_of(name, index)
    check_model(config, told(config), untrained=WITHOUT_GRADIENT)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_they_return_pictures_and_read_all_they_are_told(name: str, index: int) -> None:
    config = settings_of(name, index, channels=3)
    model = config.build().eval()
    assert isinstance(model, PictureGenerator)
    assert model.class_count == config.classes
    assert model.reads_text == (config.text is not None)
    # Conditions come in next to 0: as if trained, they are seen.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    given = told(config, channels=3)
    with torch.no_grad():
        found = model(**given)
        assert found.shape == (4, 3, 8, 8)
        for key in given:
            other = {**given, key: given[key].roll(1, 0)}
            assert not torch.allclose(model(**other), found, atol=1e-4), key
        without = {name: each for name, each in given.items() if name != "spans"}
        no_way = {**without, "spans": torch.zeros(4)}
        assert torch.equal(model(**without), model(**no_way))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_the_derivative_along_the_way_is_that_of_differences(name: str, index: int) -> None:
    """What MeanFlow asks of a model."""
    config = settings_of(name, index)
    model = config.build().double().eval()
    given = {
        key: each.double() if each.is_floating_point() else each
        for key, each in told(config).items()
    }
    moving = ("inputs", "times", "spans")
    asked = {key: each for key, each in given.items() if key not in moving}
    way = torch.randn(given["inputs"].shape, dtype=torch.float64)

    def said(place: Tensor, times: Tensor, spans: Tensor) -> Tensor:
        found: Tensor = model(inputs=place, times=times, spans=spans, **asked)
        return found

    at = (given["inputs"], given["times"], given["spans"])
    one = torch.ones(4, dtype=torch.float64)
    with torch.no_grad():
        _, slope = slope_along(said, at, (way, one, -one))
        h = 1e-6
        ahead = said(at[0] + h * way, at[1] + h, at[2] - h)
        behind = said(at[0] - h * way, at[1] - h, at[2] + h)
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-7)
