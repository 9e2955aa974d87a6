"""Every message about trained layers, their rates, and the data to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import groundup
from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.arrays import Arrays
from groundup.models.gpt import GPTConfig
from groundup.models.mlp import MLPConfig
from groundup.recipe.recipe import Optim
from groundup.recipe.sections import Init
from groundup.training.layer_freezing import TrainedLayers, freeze_all_but
from groundup.training.optimizers import build_optimizers


def perceptron() -> nn.Module:
    return MLPConfig(hidden=(8, 8), inputs=4, outputs=3).build()


def layers(model: nn.Module, steps: int = 10, **init: Any) -> TrainedLayers:
    if init.get("train_layers") is not None:
        freeze_all_but(model, init["train_layers"])
    return TrainedLayers(model, Init(**init), steps, lambda step, line: None)


def test_models_without_blocks() -> None:
    with pytest.raises(
        RecipeError,
        match=r"train_layers: needs a model that lists its layers .* and Linear has none",
    ):
        freeze_all_but(nn.Linear(2, 2), 1)
    with pytest.raises(
        RecipeError,
        match=r"unfreeze_every: needs a model that lists its layers .* and Linear has none",
    ):
        layers(nn.Linear(2, 2), unfreeze_every=2)


def test_layers_that_are_not_there() -> None:
    with pytest.raises(
        RecipeError, match=r"train_layers: is 3, but the model has 2 blocks; allowed: 0 .* to 2"
    ):
        freeze_all_but(perceptron(), 3)
    tied = GPTConfig(vocabulary_size=11, layers=1, width=8, heads=2).build()
    with pytest.raises(
        RecipeError, match=r"train_layers: is 0, but the model has no output layer of its own"
    ):
        freeze_all_but(tied, 0)


def test_releases_that_never_come() -> None:
    with pytest.raises(
        RecipeError, match="unfreeze_every: has no effect: no further block is to be trained"
    ):
        layers(perceptron(), unfreeze_every=2, train_layers=0)
    with pytest.raises(
        RecipeError, match="unfreeze_every: is 10 steps, but the run has 10: no block would ever"
    ):
        layers(perceptron(), unfreeze_every=10)


@pytest.mark.parametrize("value", [0, 1.0, 2.5, -0.1])
def test_neither_steps_nor_a_share(value: float) -> None:
    with pytest.raises(RecipeError, match="unfreeze_every"):
        validate(Init, {"unfreeze_every": value}, "recipe.init")


def test_rates_by_layer_without_layers() -> None:
    model = perceptron()
    freeze_all_but(model, 0)
    for some in (model, nn.Linear(2, 2)):
        with pytest.raises(
            RecipeError,
            match="layer_decay: has no effect: none of the trained parameters is in one",
        ):
            build_optimizers(Optim(layer_decay=0.5), some.named_parameters())


def test_labels_that_do_not_occur(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"recipe.data.labels: label '12' does not occur; .*known: 0, 1, 2"
    ):
        Arrays(labels=(1, 12)).examples("train", tmp_path)
    with pytest.raises(RecipeError, match="final_fraction has no effect with only_held_out: false"):
        validate(Arrays, {"final_fraction": 0.2}, "recipe.data")


@pytest.mark.slow
def test_old_data_that_is_gone_is_said_and_the_rest_is_judged(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("old.npz", "new.npz")]
    for path in paths:
        np.savez(path, x=drawn.random((200, 3, 3)), y=np.arange(200) % 2)
    recipe: dict[str, Any] = {
        **{
            "name": "base",
            "model": {"name": "mlp", "hidden": [4]},
            "task": "classify",
            "processor": "image",
        },
        **{
            "data": {"name": "arrays", "path": str(paths[0])},
            "training": {"batch_size": 8, "steps": 2},
        },
        **{"machine": {"device": "cpu", "precision": "fp32", "threads": 1}},
    }
    groundup.train(recipe, runs=tmp_path / "runs")
    tuned = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    tuned |= {"name": "tuned", "init": {"run": str(tmp_path / "runs" / "base")}}
    tuned["data"] = {"name": "arrays", "path": str(paths[1])}
    run = groundup.train(tuned, runs=tmp_path / "runs")
    paths[0].unlink()
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]
    (table,) = [table for table in found["tables"] if table["title"] == "Before and after"]
    assert not table["rows"]
    assert "The data of the run it was fine-tuned from cannot be read" in table["note"]
    assert "no such file" in table["note"]
    assert "accuracy" in found["metrics"]
