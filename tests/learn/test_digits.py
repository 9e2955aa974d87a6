"""Classifiers beat a baseline fitted in the same test on real digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup.data.sources.arrays import Arrays

pytestmark = pytest.mark.slow
sklearn = pytest.importorskip("sklearn")

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp": ({"name": "mlp", "hidden": [256, 256], "dropout": 0.2}, {}),
    "cnn": (
        {"name": "cnn", "channels": [32, 64], "hidden": [128], "padding": True, "dropout": 0.3},
        {},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_beats_logistic_regression_on_held_out_digits(name: str, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    model, processor = MODELS[name]
    source = Arrays()
    train, held_out = (source.examples(split, tmp_path) for split in ("train", "test"))
    pixels = [np.stack([e.inputs.ravel() / 16 for e in side]) for side in (train, held_out)]
    baseline = LogisticRegression(max_iter=1000).fit(pixels[0], [e.target for e in train])
    expected = baseline.score(pixels[1], [e.target for e in held_out])
    recipe = {
        **{
            "name": name,
            "model": model,
            "task": "classify",
            "processor": {"name": "image", **processor},
        },
        **{"data": "arrays"},
        **{"optim": {"lr": 3e-3, "warmup_steps": 20, "schedule": "cosine"}},
        **{
            "training": {"batch_size": 64, "epochs": 30},
            "evaluation": {"every": 100},
            "checkpoints": {"every": 1000},
        },
        **{"machine": {"precision": "fp32", "compile": False}},
    }
    run = groundup.train(recipe, runs=tmp_path)
    accuracy = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]["accuracy"]
    assert accuracy > expected + 0.005, (accuracy, expected)
