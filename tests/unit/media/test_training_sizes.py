"""Training pictures of several sizes: drawn by the samples' numbers, boxes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_detection_augmentation import HEIGHT, WIDTH, augment, batch_of
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.media.augmentation.detection import BoxAugment

SIZES = ((20, 28), (40, 56), (60, 84))


def test_a_size_is_that_of_the_samples_and_moves_boxes() -> None:
    settings = BoxAugment(sizes=SIZES, size_every=8)
    batch = batch_of(*([[(8.0, 4.0, 20.0, 16.0)]] * 8))
    batch["picture"] = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]).repeat(8, 1)
    seen = set()
    for first in range(0, 80, 8):
        whole = augment(settings, batch, first)
        height, width = whole["inputs"].shape[2:]
        seen.add((height, width))
        factor = torch.tensor([width / WIDTH, height / HEIGHT] * 2)
        torch.testing.assert_close(whole["boxes"], batch["boxes"] * factor)
        torch.testing.assert_close(whole["picture"], batch["picture"] * factor)
        torch.testing.assert_close(whole["frame"], batch["frame"] * factor)
        # In micro-batches of any size.
        half = {name: values[4:] for name, values in batch.items()}
        part = augment(settings, half, first + 4)
        assert all(torch.equal(part[name], whole[name][4:]) for name in part)
        left, top, right, bottom = (whole["boxes"][0, 0] / 1.0).round().int().tolist()
        assert float(whole["inputs"][0, 0, top + 1 : bottom - 1, left + 1 : right - 1].min()) > 0.9
    assert seen == set(SIZES)


def test_a_micro_batch_has_one_size() -> None:
    batch = batch_of(*([[(8.0, 4.0, 20.0, 16.0)]] * 8))
    with pytest.raises(RecipeError, match=r"size_every: is 6, .* samples 0 to 7, of several sizes"):
        augment(BoxAugment(sizes=SIZES, size_every=6), batch)


def test_a_setting_without_effect() -> None:
    with pytest.raises(RecipeError, match="size_every has no effect without sizes"):
        validate(BoxAugment, {"size_every": 4}, "recipe.task.augmentation")


@pytest.mark.parametrize("name", ["detector", "rt_detr"])
def test_sizes_that_a_model_cannot_read(name: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    recipe["task"]["augmentation"] = {"sizes": [[32, 32], [30, 36]]}
    with pytest.raises(RecipeError, match="sizes: 30 x 36 pixels cannot be read by"):
        api.trainer(recipe, runs=tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector", "detr", "rt_detr"])
def test_a_resumed_run_has_the_same_sizes(name: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    recipe["task"]["augmentation"] = {"sizes": [[32, 32], [48, 40], [24, 32]], "size_every": 16}
    recipe["training"]["steps"] = 6

    def losses(trainer: Any, steps: int) -> list[float]:
        found = []
        for report in trainer.steps():
            found.append(report.loss)
            if len(found) == steps:
                break
        trainer.save()
        trainer.close()
        return found

    whole = losses(api.trainer(recipe, runs=tmp_path / "whole"), 6)
    begun = losses(api.trainer(recipe, runs=tmp_path / "parts"), 3)
    rest = losses(api.trainer(recipe, runs=tmp_path / "parts"), 3)
    np.testing.assert_array_equal(begun + rest, whole)
