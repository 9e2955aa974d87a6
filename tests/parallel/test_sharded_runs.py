"""Runs of processes that each hold a part of every parameter: the losses of one process, whatever
is trained, and the same run on another number of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from launched import command, launch, ranks_of, rows, write_recipe
from safetensors.torch import load_file
from tiny_runs import tiny_run, without_chance

from groundup import api

pytestmark = pytest.mark.slow
MODELS: dict[str, dict[str, Any]] = {
    # Blocks of odd sizes, which do not divide evenly.
    "gpt": {"layers": 2, "mlp_width": 23},
    "bert": {},
    "encoder_decoder": {},
    "cnn": {"batch_norm": False},
    "mlp": {"hidden": [25, 11]},
    "vit": {},
    # One of its parameters is a single number.
    "sequence_recommender": {"positions": "distance"},
}
GPT = {"layers": 2, "mlp_width": 23}


def _recipes(folder: Path, suffix: str, micro_batch_size: int | str, **parallel: int) -> list[Path]:
    written = []
    for name, changes in MODELS.items():
        recipe = tiny_run(name, folder, changes)
        # Rows of like lengths are computed together by one process, and all at once by several, so
        # that others are dropped.
        if micro_batch_size == "auto" or name == "encoder_decoder":
            recipe = without_chance(recipe)
        recipe |= {"name": f"{name}-{suffix}", "logging": {"every": 1}, "parallel": parallel}
        recipe["machine"] = recipe["machine"] | {"micro_batch_size": micro_batch_size}
        written.append(write_recipe(folder, recipe))
    return written


def _compare(one: Path, other: Path) -> None:
    """Make sure that two runs have the same losses and norms, and evaluate alike."""
    for kind in ("train", "evaluate"):
        for row, found in zip(rows(one, kind), rows(other, kind), strict=True):
            assert found.keys() == row.keys()
            where = (other.name, kind, row["step"])
            assert found["loss"] == pytest.approx(row["loss"], rel=1e-5), where
            if "gradient_norm" in row:
                assert found["gradient_norm"] == pytest.approx(row["gradient_norm"], rel=1e-4)


@pytest.mark.parametrize(
    ("micro_batch_size", "processes", "axes"),
    [("auto", 2, {"shard": 2}), (4, 2, {"shard": 2}), (2, 4, {"replicate": 2, "shard": 2})],
)
def test_the_losses_are_those_of_one_process(
    tmp_path: Path, micro_batch_size: int | str, processes: int, axes: dict[str, int]
) -> None:
    """Ragged masks, clipping, dropout and accumulation included."""
    api.train_all(_recipes(tmp_path, "alone", micro_batch_size), runs=tmp_path / "runs")
    done = launch(tmp_path, processes, *_recipes(tmp_path, "shared", micro_batch_size, **axes))
    assert done.returncode == 0, done.stderr
    for name in MODELS:
        _compare(*(tmp_path / "runs" / f"{name}-{suffix}" for suffix in ("alone", "shared")))


def _write_others(folder: Path, suffix: str, parallel: dict[str, Any]) -> list[Path]:
    """Write recipes that do more with a model than to train it, one of which is trained first."""
    base = tiny_run("gpt", folder, GPT) | {"name": f"base-{suffix}"}
    base["machine"] = base["machine"] | {"micro_batch_size": 4}
    base |= {"logging": {"every": 1}, "parallel": parallel}
    average = {"average": "ema", "ema_decay": 0.9}
    samples = {"every": 10, "prompts": ["a"]}
    averaged = base | {"optim": base["optim"] | average, "samples": samples}
    momentum = {"name": "sgd", "lr": 0.05, "schedule": "constant", "clip_norm": 1.0}
    start = {"init": {"run": f"runs/base-{suffix}"}}
    later = {key: value for key, value in base.items() if key not in ("model", "processor")}
    chosen = {
        "averaged": averaged,
        "momentum": base | {"optim": momentum},
        "adapted": later | start | {"adapter": {"rank": 2}},
        "top": later | {"init": start["init"] | {"train_layers": 1}},
        "taught": base | {"distill": {"teacher": f"runs/base-{suffix}"}},
    }
    recipes = [base, *(each | {"name": f"{name}-{suffix}"} for name, each in chosen.items())]
    return [write_recipe(folder, recipe) for recipe in recipes]


def test_averages_adapters_frozen_layers_and_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Recipes name the runs that they begin with from here.
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    api.train_all(_write_others(tmp_path, "alone", {}), runs=runs)
    done = launch(tmp_path, 2, *_write_others(tmp_path, "shared", {"shard": 2}))
    assert done.returncode == 0, done.stderr
    for name in ("base", "averaged", "momentum", "adapted", "top", "taught"):
        _compare(*(runs / f"{name}-{suffix}" for suffix in ("alone", "shared")))
    said = [rows(runs / f"averaged-{suffix}", "sample") for suffix in ("alone", "shared")]
    assert len(said[0]) == 2
    assert said[0] == said[1]
    whole = [
        load_file(runs / f"averaged-{end}/model/model.safetensors") for end in ("alone", "shared")
    ]
    for name, tensor in whole[0].items():
        assert whole[1][name].shape == tensor.shape
        assert (whole[1][name] - tensor).abs().max() < 1e-5, name


def test_a_run_goes_on_under_another_layout(tmp_path: Path) -> None:
    """Two parts, one process, two parts, two copies; with averages, whose raw weights are saved."""
    recipe = without_chance(tiny_run("gpt", tmp_path, GPT))
    recipe |= {"logging": {"every": 1}, "checkpoints": {"every": 1, "keep": 20}}
    recipe["optim"] = {"lr": 3e-3, "schedule": "constant", "average": "ema", "ema_decay": 0.9}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": "auto"}
    alone = api.train(recipe | {"name": "alone"}, runs=tmp_path / "runs").folder
    changing = write_recipe(tmp_path, recipe | {"name": "changing"})
    changed = tmp_path / "runs" / "changing"
    for processes, shard, steps in ((2, 2, 5), (1, 1, 10), (2, 2, 15), (2, 1, 20)):
        axes = (f"parallel.shard={shard}", f"training.steps={steps}")
        done = launch(tmp_path, processes, changing, *axes)
        assert done.returncode == 0, done.stderr
    _compare_losses(alone, changed)


def _compare_losses(one: Path, other: Path) -> None:
    losses = [[row["loss"] for row in rows(each, "train")] for each in (one, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_what_cannot_be_divided_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    recipe = tiny_run("mlp", tmp_path) | {"parallel": {"shard": 2}, "optim": {"name": "muon"}}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 8}
    done = launch(tmp_path, 2, write_recipe(tmp_path, recipe))
    assert done.returncode == 6, done.stderr
    assert "recipe.parallel.shard: is 2, but recipe.optim.name is muon" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_who_is_killed_between_two_layers_is_named(tmp_path: Path) -> None:
    """Parameters are exchanged by PyTorch itself, within a forward and a backward pass."""
    recipe = tiny_run("gpt", tmp_path, {"layers": 4}) | {"name": "killed", "logging": {"every": 1}}
    recipe |= {"parallel": {"shard": 2, "timeout_s": 20}, "checkpoints": {"every": 1000}}
    recipe["training"] = {"batch_size": 16, "steps": 100_000}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    started = subprocess.Popen(
        command(2, write_recipe(tmp_path, recipe)), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs" / "killed" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.read_text(encoding="utf-8").count("\n") > 3):
        assert started.poll() is None
        time.sleep(0.1)
    victim = ranks_of(started.pid)[1]
    os.kill(victim, signal.SIGKILL)
    _, error = started.communicate(timeout=60)
    assert f"rank 1 (process {victim} on" in error
    assert "did not answer while" in error
    assert "Traceback" not in error
