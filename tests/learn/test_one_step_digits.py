"""A small transformer writes digits in one step nearly as well as in many, after what its own many steps
taught it; the same weights before that make grey fog in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup import api
from groundup.contracts.processors import Pictures
from groundup.data.sources.arrays import Arrays
from groundup.inference.predictor import Predictor
from groundup.metrics.frechet import frechet_distance

pytestmark = pytest.mark.slow
MACHINE = {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1}
BASE: dict[str, Any] = {
    "name": "many-steps",
    "model": {"name": "dit", "patch": 4, "width": 96, "layers": 2, "heads": 4},
    "task": {"name": "generate_images", "steps": 30, "sampler": "euler"},
    "processor": {"name": "image", "normalise": "given", "mean": [0.5], "std": [0.5]},
    "data": "arrays",
    "optim": {"lr": 3e-3, "schedule": "linear", "warmup_steps": 20, "ema_decay": 0.99},
    "training": {"batch_size": 64, "steps": 900},
    "evaluation": {"every": 900},
    "checkpoints": {"every": 900},
    "machine": MACHINE,
}
TAUGHT: dict[str, Any] = {
    **{name: value for name, value in BASE.items() if name not in ("model", "processor")},
    "name": "one-step",
    "task": {
        "name": "generate_images",
        "mean_flow": True,
        "step_targets": "teacher",
        "teacher_steps": 8,
        "teacher_repeats": 4,
        "steps": 1,
    },
    "optim": {**BASE["optim"], "lr": 1e-3},
    "training": {"batch_size": 64, "steps": 450},
}


def pixels(predictor: Predictor, pictures: torch.Tensor) -> np.ndarray:
    """Return (N, D) pixels between 0 and 1 of pictures as the model has them."""
    reader = predictor.processor.inputs
    assert isinstance(reader, Pictures)
    return reader.to_pixels(pictures).clamp(0, 1).flatten(1).double().numpy()


def test_one_step_makes_what_many_steps_make(tmp_path: Path) -> None:
    base = api.load(api.train(BASE, runs=tmp_path).folder)
    recipe = TAUGHT | {"init": {"run": str(base.run.folder)}}
    taught = api.load(api.train(recipe, runs=tmp_path).folder)
    digits = [each.inputs for each in Arrays().examples("train", tmp_path)]
    real = pixels(base, base.processor.encode_inputs(digits)["inputs"])

    def distance(predictor: Predictor, steps: int) -> float:
        """Return the Fréchet distance of 1,000 made digits from all real ones."""
        processor, options = predictor.processor, {"steps": steps, "sampler": "euler"}
        rows = predictor.task.make(predictor.model, list(processor.labels), processor, 100, options)
        return frechet_distance(pixels(predictor, torch.cat(rows)), real)

    many, fog, one = distance(base, 30), distance(base, 1), distance(taught, 1)
    print(f"Fréchet distance: {many:.3f} in 30 steps, {fog:.3f} in one; taught {one:.3f} in one")
    assert one < 2 * many
    assert one < fog / 3
