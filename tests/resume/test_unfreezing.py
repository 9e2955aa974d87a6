"""A run that is stopped while its layers are being released goes on as if it had never stopped, bit
by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resuming import stopped_and_resumed

RECIPE: dict[str, Any] = {
    **{
        "name": "digits",
        "model": {"name": "mlp", "hidden": [12, 10, 8], "norm": "batch", "dropout": 0.1},
    },
    **{"task": "classify", "processor": "image", "data": "arrays", "init": {"unfreeze_every": 4}},
    **{
        "training": {"batch_size": 16, "steps": 18},
        "evaluation": {"every": 7},
        "checkpoints": {"every": 100},
    },
    **{"machine": {"device": "cpu", "precision": "fp32", "threads": 1, "compile": False}},
}
OPTIMS: list[dict[str, Any]] = [
    {"name": "adamw", "layer_decay": 0.7},
    {"name": "adam"},
    {"name": "sgd", "momentum": 0.9, "lr": 0.05, "layer_decay": 0.7},
    {"name": "muon", "layer_decay": 0.7},
]


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: str(optim["name"]))
@pytest.mark.parametrize(
    "stops",
    [(4, 9), pytest.param((3,), marks=SLOW), pytest.param((8, 12, 13), marks=SLOW)],
    ids=str,
)
def test_stopped_between_two_releases(
    optim: dict[str, Any], stops: tuple[int, ...], tmp_path: Path
) -> None:
    recipe = {**RECIPE, "optim": {"lr": 1e-2, **optim}}
    stopped_and_resumed(recipe, tmp_path, (*stops, 18))
