"""What a run takes is counted without training it, for every model and task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ENCODER_TASKS, MODELS, encoder_run, preference_run, tiny_run

import groundup
from groundup import api
from groundup.core.errors import DataError
from groundup.recipe.recipe import load_recipe
from groundup.recipe.yaml import parse_yaml

ROOT = Path(__file__).parents[3] / "recipes"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    facts = api.describe(load_recipe(recipe))
    assert not Path("runs").exists()
    trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
    report = next(trainer.steps())
    held = {name: p.numel() for name, p in trainer.model.named_parameters()}
    assert facts["parameters"] == sum(held.values())
    assert facts["steps"] == trainer.total_steps
    assert facts["data"]["train"]["samples"] == trainer.samples_per_epoch
    # the count of steps that some optimizers keep is no size of the model's
    moments = {n: t.nbytes for n, t in trainer.optimizer.state_dict().items() if t.ndim}
    moments |= {n: 0 for n in moments if n.endswith("/step")}
    assert facts["memory_mb"]["optimizer"] == round(sum(moments.values()) / 2**20, 3)
    assert report.samples_seen
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ENCODER_TASKS, "preference"])
def test_every_task(name: str, tmp_path: Path) -> None:
    recipe = preference_run(tmp_path) if name == "preference" else encoder_run(name, tmp_path)
    facts = api.describe(load_recipe(recipe))
    assert facts["steps"] > 0
    assert facts["parameters"] >= facts["trained_parameters"] > 0


@pytest.mark.slow
def test_every_recipe_whose_data_are_at_hand() -> None:
    counted = []
    for path in sorted(ROOT.rglob("*.yaml")):
        text = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        if {"run", "pretrained"} & set(text.get("init", {})):
            continue
        try:
            facts = api.describe(load_recipe(path))
        except DataError:  # data that is fetched from elsewhere
            continue
        assert facts["steps"] > 0
        assert not facts["notes"]
        counted.append(path.stem)
    assert {"pretrain", "cnn", "dense_sgd", "mlp_1024"} <= set(counted)


@pytest.mark.slow
def test_adapters_and_quantized_weights(recipe: dict[str, Any], tmp_path: Path) -> None:
    base = groundup.train(recipe, runs=tmp_path)
    tuned = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    tuned |= {"name": "tuned", "init": {"run": str(base.folder)}, "adapter": {"rank": 2}}
    facts = api.describe(load_recipe(tuned))
    trainer = groundup.trainer(tuned, runs=tmp_path)
    assert facts["trained_parameters"] == sum(p.numel() for _, p in trainer.trained)
    assert facts["parameters"] == sum(p.numel() for p in trainer.model.parameters())
    trainer.close()
    fewer = api.describe(load_recipe(tuned, {"adapter.base": "int8"}))
    assert fewer["memory_mb"]["weights"] < facts["memory_mb"]["weights"]


def test_a_base_that_is_not_trained_yet(recipe: dict[str, Any], tmp_path: Path) -> None:
    second = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    second |= {"name": "second", "init": {"run": str(tmp_path / "small")}}
    _, planned = api.plan([recipe, second], runs=tmp_path)
    facts = api.describe(planned)
    assert "which is not trained yet: its sizes are not known" in facts["notes"][0]
