"""Runs on several processes: the losses of one, the same samples, the same bits where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launched import launch, rows, weights_digest, write_recipe
from tiny_runs import tiny_run, without_chance

from groundup import api

pytestmark = pytest.mark.slow
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {},
    "bert": {},
    "encoder_decoder": {},
    "cnn": {"batch_norm": False},
    "mlp": {},
    "vit": {},
    "ctc": {},
    "sequence_recommender": {},
}


def _recipes(folder: Path, suffix: str, micro_batch_size: int | str) -> list[Path]:
    written = []
    for name, changes in MODELS.items():
        recipe = tiny_run(name, folder, changes)
        if micro_batch_size == "auto":
            # What is dropped is keyed by the first sample of a micro-batch, whose size differs.
            recipe = without_chance(recipe)
        recipe |= {"name": f"{name}-{suffix}", "logging": {"every": 1}}
        recipe["machine"] = recipe["machine"] | {"micro_batch_size": micro_batch_size}
        written.append(write_recipe(folder, recipe))
    return written


@pytest.mark.parametrize("micro_batch_size", ["auto", 4])
def test_the_losses_are_those_of_one_process(tmp_path: Path, micro_batch_size: int | str) -> None:
    """Ragged masks, clipping and, with micro-batches of 4, accumulation and dropout included."""
    api.train_all(_recipes(tmp_path, "alone", micro_batch_size), runs=tmp_path / "runs")
    done = launch(tmp_path, 2, *_recipes(tmp_path, "shared", micro_batch_size))
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        alone = rows(tmp_path / "runs" / f"{name}-alone", "train")
        shared = rows(tmp_path / "runs" / f"{name}-shared", "train")
        assert len(alone) == len(shared) == 20
        for one, two in zip(alone, shared, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), (name, one["step"])
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), name
        alone = rows(tmp_path / "runs" / f"{name}-alone", "evaluate")
        shared = rows(tmp_path / "runs" / f"{name}-shared", "evaluate")
        for one, two in zip(alone, shared, strict=True):
            assert two.keys() == one.keys()
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), name


def test_weights_are_the_same_bit_for_bit_on_any_number_of_processes(tmp_path: Path) -> None:
    recipe = tiny_run("gpt", tmp_path)
    recipe |= {"parallel": {"exact": True}, "checkpoints": {"every": 1, "keep": 20}}
    recipe["optim"] = {"lr": 3e-3, "schedule": "constant", "clip_norm": 1.0}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    alone = tmp_path / "runs" / api.train(recipe | {"name": "alone"}, runs=tmp_path / "runs").folder
    changing = write_recipe(tmp_path, recipe | {"name": "changing"})
    for processes, steps in ((4, 7), (1, 13), (2, 20)):
        if processes == 1:
            api.train(changing, {"training.steps": steps}, runs=tmp_path / "runs")
        else:
            done = launch(tmp_path, processes, changing, f"training.steps={steps}")
            assert done.returncode == 0, done.stderr
        here = weights_digest(tmp_path / "runs" / "changing", steps)
        assert here == weights_digest(alone, steps), (processes, steps)


def test_a_run_goes_on_with_the_samples_that_are_next(tmp_path: Path) -> None:
    """On three processes and then on five, whose micro-batches are others."""
    recipe = without_chance(tiny_run("mlp", tmp_path)) | {"name": "alone"}
    recipe |= {"training": {"batch_size": 15, "steps": 12}, "logging": {"every": 1}}
    recipe["optim"] = {"lr": 3e-3, "schedule": "constant"}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": "auto"}
    api.train(recipe, runs=tmp_path / "runs")
    changing = write_recipe(tmp_path, recipe | {"name": "changing"})
    for processes, steps in ((3, 6), (5, 12)):
        done = launch(tmp_path, processes, changing, f"training.steps={steps}")
        assert done.returncode == 0, done.stderr
    alone = rows(tmp_path / "runs" / "alone", "train")
    changed = rows(tmp_path / "runs" / "changing", "train")
    # Another sample would change a loss by far more than rounding does.
    assert [row["loss"] for row in changed] == pytest.approx(
        [row["loss"] for row in alone], rel=1e-5
    )
