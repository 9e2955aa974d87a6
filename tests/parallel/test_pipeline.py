"""Runs whose layers are divided between processes: the losses of one process, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from launched import launch, rows, weights_digest, write_recipe
from tiny_runs import tiny_run, without_chance

from groundup import api

pytestmark = pytest.mark.slow
# Each with what it reads, deep enough for two stages. ``rounds`` goes through each process twice.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": ("gpt", {"layers": 3}),
    "untied": ("gpt", {"layers": 2, "tied_embeddings": False, "positions": "learned"}),
    "rounds": ("gpt", {"layers": 4}),
    "bert": ("bert", {"layers": 2}),
    "encoder_decoder": ("encoder_decoder", {"layers": 2}),
    "cnn": ("cnn", {"batch_norm": False}),
    "mlp": ("mlp", {"hidden": [24, 16]}),
    "vit": ("vit", {}),
}


def _write(
    folder: Path, suffix: str, parallel: dict[str, Any], names: tuple[str, ...]
) -> list[Path]:
    """Write the recipes of some models, and return their paths."""
    written = []
    for name in names:
        model, settings = MODELS[name]
        # What is dropped differs: each stage draws for itself.
        recipe = without_chance(tiny_run(model, folder, settings))
        recipe |= {"name": f"{name}-{suffix}", "logging": {"every": 1}}
        recipe["optim"] |= {"schedule": "constant"}
        recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
        if name == "encoder_decoder":
            recipe["task"] |= {"measured": 0}
        recipe["parallel"] = dict(parallel)
        if parallel and name == "rounds":
            recipe["parallel"] |= {"interleave": 2}
        written.append(write_recipe(folder, recipe))
    return written


def _compare(runs: Path, suffix: str, names: tuple[str, ...]) -> None:
    for name in names:
        alone, shared = (runs / f"{name}-{kind}" for kind in ("alone", suffix))
        pairs = zip(rows(alone, "train"), rows(shared, "train"), strict=True)
        for one, two in pairs:
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), (name, one["step"])
            assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4), name
        for one, two in zip(rows(alone, "evaluate"), rows(shared, "evaluate"), strict=True):
            assert two.keys() == one.keys()
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), name


def test_the_losses_are_those_of_one_process(tmp_path: Path) -> None:
    """Ragged rows, accumulation and clipping included; a checkpoint goes on without stages, and
    with them again."""
    names = tuple(MODELS)
    runs = tmp_path / "runs"
    done = launch(tmp_path, 2, *_write(tmp_path, "shared", {"pipeline": 2}, names))
    assert done.returncode == 0, done.stderr
    api.train_all(_write(tmp_path, "alone", {}, names), runs=runs)
    _compare(runs, "shared", names)
    before = weights_digest(runs / "gpt-shared", 20)
    path = tmp_path / "gpt-shared.yaml"
    api.train(path, {"training.steps": 23, "parallel.pipeline": 1}, runs=runs)
    assert weights_digest(runs / "gpt-shared", 20) == before
    done = launch(tmp_path, 2, path, "training.steps=26")
    assert done.returncode == 0, done.stderr
    api.train(tmp_path / "gpt-alone.yaml", {"training.steps": 26}, runs=runs)
    one, two = (rows(runs / f"gpt-{kind}", "train") for kind in ("alone", "shared"))
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)


def test_stages_and_copies(tmp_path: Path) -> None:
    """Two copies of two stages each; two stages that each read a part of the texts; and two whose
    matrices are divided."""
    names = ("gpt", "bert")
    runs = tmp_path / "runs"
    api.train_all(_write(tmp_path, "alone", {}, names), runs=runs)
    recipes = _write(tmp_path, "copies", {"pipeline": 2, "replicate": 2}, names)
    recipes += _write(tmp_path, "parts", {"pipeline": 2, "context": 2}, ("gpt",))
    recipes += _write(tmp_path, "matrices", {"pipeline": 2, "tensor": 2}, ("gpt",))
    done = launch(tmp_path, 4, *recipes)
    assert done.returncode == 0, done.stderr
    _compare(runs, "copies", names)
    _compare(runs, "parts", ("gpt",))
    _compare(runs, "matrices", ("gpt",))
