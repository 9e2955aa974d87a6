"""Detection with pictures that are padded: what only pads them is told to models that look away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import RecipeError
from groundup.core.values import Example
from groundup.models.detr import DETRConfig
from groundup.processors.boxes import BoxesProcessor, mask_of, picture_in_inputs
from groundup.processors.class_targets import BoxClasses
from groundup.processors.image import ImageConfig
from groundup.tasks.detect.detections import Choice
from groundup.tasks.detect.prediction import find_in

TRUNK = {"name": "resnet", "layers": [1, 1], "width": 4, "stem": "small"}


def processor_of(pictures: list[Any]) -> BoxesProcessor:
    config = ImageConfig(size=(24, 24), resize="pad")
    fitted: Any = config.fit(lambda: (Example("p", each, None) for each in pictures))
    return BoxesProcessor(fitted, BoxClasses(("a", "b")))


@pytest.fixture
def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(50, 255, size, dtype=np.uint8) for size in ((24, 24), (12, 48), (40, 10))]


def test_the_mask_is_where_pixels_are(pictures: list[Any]) -> None:
    batch = processor_of(pictures).encode_inputs(pictures)
    mask = mask_of(picture_in_inputs(batch), 24, 24)
    torch.testing.assert_close(mask, batch["inputs"][:, 0] > 0)


def test_what_pads_a_picture_changes_nothing(pictures: list[Any]) -> None:
    """The trunk reads it, whose last map is as fine as pixels; attention does not."""
    torch.manual_seed(0)
    config = DETRConfig(
        backbone={"name": "vit", "patch": 1, "layers": 1, "width": 8, "heads": 2},
        width=8,
        heads=2,
        queries=4,
        input_shape=(1, 24, 24),
        outputs=2,
    )
    model = config.build().eval()
    # Each place is of its own pixel alone.
    model._read_maps = lambda _, inputs: [inputs.repeat(1, 8, 1, 1)]
    processor = processor_of(pictures)
    choice = Choice(0.0, 4, 1.0)
    before = find_in(model, pictures, processor, choice, masked=True)
    encode = processor.encode_inputs

    def noisy(inputs: Any) -> Any:
        batch = encode(inputs)
        mask = mask_of(picture_in_inputs(batch), 24, 24)[:, None]
        return batch | {"inputs": torch.where(mask, batch["inputs"], 9.0)}

    processor.encode_inputs = noisy  # type: ignore[method-assign]
    for one, two in zip(
        before, find_in(model, pictures, processor, choice, masked=True), strict=True
    ):
        torch.testing.assert_close(one.scores, two.scores)
        torch.testing.assert_close(one.boxes, two.boxes)
    other = find_in(model, pictures, processor, choice)
    assert not torch.allclose(other[1].scores, before[1].scores)


def test_a_picture_that_is_moved_away_gives_numbers() -> None:
    torch.manual_seed(0)
    shape = {"backbone": TRUNK, "width": 8, "heads": 2, "queries": 4}
    model = DETRConfig(**shape, input_shape=(1, 16, 16), outputs=2).build().eval()
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    # Between two places of the last map; and nowhere.
    mask[0, 1:2, 1:2] = True
    found = model(torch.randn(2, 1, 16, 16), mask)
    assert found.boxes.isfinite().all()
    assert found.logits.isfinite().all()
    assert found.sizes.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("name", "resize", "words"),
    [
        ("detr", "stretch", "mask_padding: has no effect: nothing pads the pictures"),
        ("rt_detr", "pad", "mask_padding: has no effect: RTDETR reads no mask"),
    ],
)
def test_where_a_mask_means_nothing(name: str, resize: str, words: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    recipe["task"]["mask_padding"] = True
    recipe["processor"] = {"name": "image", "size": [32, 32], "resize": resize}
    with pytest.raises(RecipeError, match=words):
        api.trainer(recipe, runs=tmp_path / "runs")
