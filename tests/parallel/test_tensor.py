"""Runs whose matrices are divided between processes: the losses, norms and weights of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from launched import launch, rows, write_recipe
from tiny_runs import tiny_run, without_chance

from groundup import api
from groundup.runs.run import Run

pytestmark = pytest.mark.slow
# Odd widths too: a vocabulary of 259, 23 inner numbers, three queries for one key.
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"heads": 4, "kv_heads": 2, "qk_norm": True, "bias": "qkv", "mlp_width": 23},
    "gemma3": {"kv_heads": 2, "logit_cap": 8.0},
    "bert": {},
    "encoder_decoder": {"positions": "relative"},
    "whisper": {},
    "vit": {},
    "cnn": {"batch_norm": False},
    "mlp": {"hidden": [25, 11]},
    "sequence_recommender": {"positions": "distance"},
    "transformer_classifier": {},
}


def _recipes(folder: Path, suffix: str, **parallel: int) -> list[Path]:
    written = []
    for name, changes in MODELS.items():
        recipe = tiny_run(name, folder, changes)
        # Accumulated over four micro-batches, ragged ones where rows are texts.
        recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
        recipe |= {"name": f"{name}-{suffix}", "logging": {"every": 1}, "parallel": parallel}
        written.append(write_recipe(folder, recipe))
    return written


def test_the_losses_are_those_of_one_process(tmp_path: Path) -> None:
    """Dropout, clipping and accumulation included."""
    api.train_all(_recipes(tmp_path, "alone"), runs=tmp_path / "runs")
    done = launch(tmp_path, 2, *_recipes(tmp_path, "divided", tensor=2))
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        alone, divided = (tmp_path / "runs" / f"{name}-{each}" for each in ("alone", "divided"))
        for one, two in zip(rows(alone, "train"), rows(divided, "train"), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), (name, one["step"])
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), name
        for one, two in zip(rows(alone, "evaluate"), rows(divided, "evaluate"), strict=True):
            assert two.keys() == one.keys()
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), name


def test_a_run_goes_on_under_other_layouts(tmp_path: Path) -> None:
    """From two processes to one and back, with averaged weights, and writes samples all the time."""
    recipe = tiny_run("gpt", tmp_path, {"heads": 2, "tied_embeddings": False})
    recipe["optim"] = {"lr": 3e-3, "schedule": "constant", "clip_norm": 1.0, "average": "ema"}
    recipe |= {"logging": {"every": 1}, "samples": {"every": 7, "prompts": [".", "o"]}}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 8}
    api.train(recipe | {"name": "alone"}, runs=tmp_path / "runs")
    changing = write_recipe(tmp_path, recipe | {"name": "changing"})
    for tensor, steps in ((2, 7), (1, 13), (2, 20)):
        changes = {"training.steps": steps, "parallel.tensor": tensor}
        if tensor == 1:
            api.train(changing, changes, runs=tmp_path / "runs")
        else:
            done = launch(tmp_path, tensor, changing, *(f"{k}={v}" for k, v in changes.items()))
            assert done.returncode == 0, done.stderr
    alone, changed = (tmp_path / "runs" / each for each in ("alone", "changing"))
    losses = [[row["loss"] for row in rows(run, "train")] for run in (changed, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    own, other = (Run.open(run).checkpoints.load(20) for run in (changed, alone))
    for found, expected in ((own.model, other.model), (own.optimizer, other.optimizer)):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)
    texts = [[row["text"] for row in rows(run, "sample")] for run in (changed, alone)]
    assert texts[0][-2:] == texts[1][-2:]


def test_what_cannot_be_divided_is_one_sentence(tmp_path: Path) -> None:
    recipes = [
        tiny_run("gpt", tmp_path, {"heads": 3, "width": 12}) | {"name": "heads"},
        tiny_run("resnet", tmp_path) | {"name": "kind"},
    ]
    said = ["which does not divide the 3 of model.heads", "the matrices of ResNet is not known"]
    for recipe, expected in zip(recipes, said, strict=True):
        done = launch(tmp_path, 2, write_recipe(tmp_path, recipe | {"parallel": {"tensor": 2}}))
        assert done.returncode == 6, done.stderr
        assert "recipe.parallel.tensor: is 2, " in done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("other", ["shard", "context"])
def test_next_to_another_axis(tmp_path: Path, other: str) -> None:
    """Four processes: the matrices divided over two, and what the other axis divides."""
    recipe = without_chance(tiny_run("gpt", tmp_path, {**MODELS["gpt"], "layers": 2}))
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    recipe |= {"logging": {"every": 1}}
    api.train(recipe | {"name": "alone"}, runs=tmp_path / "runs")
    both = {"parallel": {other: 2, "tensor": 2}}
    done = launch(tmp_path, 4, write_recipe(tmp_path, recipe | {"name": "both", **both}))
    assert done.returncode == 0, done.stderr
    alone, both_axes = (rows(tmp_path / "runs" / name, "train") for name in ("alone", "both"))
    for one, two in zip(alone, both_axes, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), one["step"]
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), one["step"]
