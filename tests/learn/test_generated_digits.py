"""A small U-Net trained for half a minute of CPU writes digits by which real ones are read better than by
draws from the normal distribution of each class; and learns a few of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup import api
from groundup.data.sources.arrays import Arrays

pytestmark = pytest.mark.slow
AROUND_ZERO = {"name": "image", "normalise": "given", "mean": [0.5], "std": [0.5]}
RECIPE: dict[str, Any] = {
    "name": "learn-digits",
    "model": {"name": "unet", "widths": [32, 64]},
    "task": {
        "name": "generate_images",
        "steps": 20,
        "sampler": "euler",
        "guidance": 2.0,
        "guidance_interval": [0.1, 0.5],
        "evaluated": 300,
    },
    "processor": AROUND_ZERO,
    "data": "arrays",
    "optim": {
        "lr": 2e-3,
        "warmup_steps": 20,
        "schedule": "linear",
        "final_lr_fraction": 0.05,
        "ema_decay": 0.99,
    },
    "training": {"batch_size": 64, "steps": 320},
    "evaluation": {"every": 320},
    "checkpoints": {"every": 320},
    "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return api.train(RECIPE, runs=tmp_path_factory.mktemp("runs")).folder


def test_real_digits_are_read_by_those_that_it_writes(base: Path) -> None:
    found = api.evaluate(base)["runs"][0]["evaluation"]["metrics"]
    # The class of each real digit by the nearest one that was made, or drawn without learning.
    assert found["nearest_neighbour_accuracy"] > found["baseline_nearest_neighbour_accuracy"]
    assert found["same_kind_share"] < 0.75
    assert found["copied_pictures"] <= 0.3 * found["shown_pictures"]


@pytest.mark.parametrize("adapter", [None, {"rank": 8}])
def test_a_few_pictures_of_its_own_are_learned(
    adapter: dict[str, Any] | None, base: Path, tmp_path: Path
) -> None:
    """Sevens in white on black become sevens in grey, and other digits are asked for as before."""
    sevens = [each for each in Arrays().examples("train", tmp_path) if each.target == 7][:24]
    pictures = np.stack([np.asarray(each.inputs) / 2 for each in sevens])
    np.savez(tmp_path / "grey.npz", x=pictures, y=np.full(24, 7))
    recipe = {key: value for key, value in RECIPE.items() if key not in ("model", "processor")}
    recipe |= {
        "name": "grey",
        "init": {"run": str(base)},
        "data": {"name": "arrays", "path": str(tmp_path / "grey.npz"), "fraction": 0.2},
        "training": {"batch_size": 16, "steps": 60},
        "optim": {"lr": 2e-3, "ema_decay": 0.9},
    }
    if adapter is not None:
        recipe["adapter"] = adapter
    run = api.train(recipe, runs=tmp_path)
    before, after = map(api.load, (base, run.folder))
    brightest = []
    for predictor in (before, after):
        sheet = predictor("7", count=8).pixels
        # Without the white columns between the pictures.
        brightest.append(np.mean([sheet[:, n * 9 : n * 9 + 8].max() for n in range(8)]))
    assert brightest[0] > 220
    assert brightest[1] < 190
