"""The trunk of a detector begins as a trained classifier's layers, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TRUNK, tiny_run

from groundup import api
from groundup.core.errors import CheckpointError, RecipeError
from groundup.recipe.recipe import load_recipe
from groundup.runs.run import Run
from groundup.weights.initial_weights import weights_of


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of grey digits with the layers of the tiny detectors."""
    folder = tmp_path_factory.mktemp("classifier")
    recipe = tiny_run("resnet", folder)
    recipe["model"] = dict(TRUNK)
    return api.train(recipe, {"training.steps": 1, "name": "digits"}, runs=folder)


def detector(base: Path, folder: Path, name: str = "detector", **model: Any) -> dict[str, Any]:
    recipe = tiny_run(name, folder)
    # What is left out is the classifier's.
    del recipe["model"]["backbone"]
    recipe["model"] |= model
    return recipe | {"init": {"run": str(base)}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector", "detr", "rt_detr"])
def test_the_trunk_is_filled_and_the_rest_is_new(
    name: str, classifier: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    trainer = api.trainer(detector(classifier.folder, tmp_path, name), runs=tmp_path / "runs")
    base = weights_of(classifier, classifier.pick("last"))
    own = trainer.parts.model.state_dict()
    trunk = [key for key in base if key.startswith(("embed.", "blocks."))]
    assert len(trunk) > 10
    assert all(torch.equal(own[key], base[key]) for key in trunk)
    assert f"{len(trunk)} tensors (embed, blocks) are filled" in caplog.text
    assert f"{len(own) - len(trunk)} are new, from random numbers (" in caplog.text
    assert "2 of the classifier have no place here (head)" in caplog.text
    assert trainer.recipe.model.backbone.items() >= TRUNK.items()
    # Its classes and its pictures are those of this data.
    assert trainer.recipe.model.input_shape == (1, 32, 32)


@pytest.mark.slow
def test_it_trains_and_predicts(classifier: Run, tmp_path: Path) -> None:
    recipe = detector(classifier.folder, tmp_path) | {"name": "found"}
    recipe["init"]["train_layers"] = 0
    run = api.train(recipe, {"training.steps": 2}, runs=tmp_path / "runs")
    before = weights_of(classifier, classifier.pick("last"))
    after = weights_of(run, run.pick("last"))
    assert torch.equal(after["blocks.0.layers.0.weight"], before["blocks.0.layers.0.weight"])
    (scene, *_) = run.recipe.data.examples("validation", tmp_path)
    assert isinstance(api.load(run.folder)(scene.inputs), list)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 8}, r"has shape \[4, 1, 3, 3\], but that of the trunk \[8, 1"),
        ({"layers": [1, 1, 2]}, r"lacks tensor blocks\.3\..*, which the trunk has"),
        ({"layers": [1, 1]}, r"has tensor blocks\.2\..*, but the trunk has not"),
    ],
)
def test_other_sizes(changes: dict[str, Any], words: str, classifier: Run, tmp_path: Path) -> None:
    recipe = detector(classifier.folder, tmp_path, backbone=changes)
    with pytest.raises(CheckpointError, match=words):
        api.trainer(recipe, runs=tmp_path / "runs")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"name": "detector", "backbone": {"name": "vit"}}}, r"is vit, .* of a resnet"),
        ({"adapter": {"name": "lora"}}, "of detector only the trunk is"),
    ],
)
def test_what_cannot_be_a_trunk(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    sections = {"model": dict(TRUNK), "processor": {"name": "image"}}
    (base / "recipe.yaml").write_text(json.dumps(sections))
    with pytest.raises(RecipeError, match=words):
        load_recipe(detector(base, tmp_path) | changes)
