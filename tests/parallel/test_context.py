"""Runs whose texts are divided between processes: the losses of one process, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launched import launch, rows, weights_digest, write_recipe
from tiny_runs import tiny_run, without_chance

from groundup import api

pytestmark = pytest.mark.slow
MODELS = ("gpt", "learned", "gemma3", "bert")


def _recipe(name: str, folder: Path) -> dict[str, Any]:
    if name == "bert":
        recipe = tiny_run("bert", folder, {"layers": 2, "context_length": 16}, reads="documents")
        recipe["task"] = {"name": "masked_language_modeling"}
        recipe["processor"] = {"name": "bpe", "vocab_size": 300, "encoder": True}
    elif name == "learned":
        recipe = tiny_run("gpt", folder, {"layers": 2, "positions": "learned"})
    else:
        # Gemma's layers have windows; of a GPT's heads two share a key here.
        recipe = tiny_run(name, folder, {"kv_heads": 1} if name == "gpt" else {})
    # What is dropped differs: each process drops of its own tokens.
    recipe = without_chance(recipe)
    recipe["optim"] |= {"schedule": "constant"}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    return recipe | {"logging": {"every": 1}, "training": {"batch_size": 8, "steps": 20}}


def _write(folder: Path, suffix: str, parallel: dict[str, Any]) -> list[Path]:
    """Write a recipe of each model, and return their paths."""
    recipes = {name: _recipe(name, folder) for name in MODELS}
    return [
        write_recipe(folder, recipe | {"name": f"{name}-{suffix}", "parallel": parallel})
        for name, recipe in recipes.items()
    ]


def test_the_losses_are_those_of_one_process(tmp_path: Path) -> None:
    """Packed documents that are cut anywhere, windows, accumulation and clipping included; and the
    checkpoint goes on without the axis."""
    runs = tmp_path / "runs"
    done = launch(tmp_path, 2, *_write(tmp_path, "shared", {"context": 2}))
    assert done.returncode == 0, done.stderr
    api.train_all(_write(tmp_path, "alone", {}), runs=runs)
    for name in MODELS:
        alone, shared = (runs / f"{name}-{kind}" for kind in ("alone", "shared"))
        for one, two in zip(rows(alone, "train"), rows(shared, "train"), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), (name, one["step"])
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), name
        ((one,), (two,)) = (rows(each, "evaluate") for each in (alone, shared))
        assert two.keys() == one.keys()
        for key in ("loss", "baseline_loss"):
            assert two[key] == pytest.approx(one[key], rel=1e-5), (name, key)
    before = weights_digest(runs / "gpt-shared", 20)
    for kind, axes in (("shared", {"parallel.context": 1}), ("alone", {})):
        path = tmp_path / f"gpt-{kind}.yaml"
        api.train(path, {"training.steps": 23, **axes}, runs=runs)
    assert weights_digest(runs / "gpt-shared", 20) == before
    one, two = (rows(runs / f"gpt-{kind}", "train") for kind in ("alone", "shared"))
    assert [row["loss"] for row in two[20:]] == pytest.approx(
        [row["loss"] for row in one[20:]], rel=1e-5
    )
