"""The same seed makes the same picture, to the last bit, whether a run was stopped or not: with
directions and with steps, by text, with all weights and with an adapter on a few pictures of one's
own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_runs import from_captions_run
from resuming import stopped_and_resumed
from tiny_runs import tiny_run

from groundup import api
from groundup.data.sources.arrays import Arrays

pytestmark = pytest.mark.slow
STEPS = {"mean_flow": True, "step_guidance": 1.5}


def same_pictures(recipe: dict[str, Any], runs: Path, prompt: str = "7") -> None:
    stopped_and_resumed(recipe, runs, (2, 5))
    api.train(recipe, runs=runs / "trained")
    whole, parts = (api.load(runs / each / recipe["name"], "last") for each in ("trained", "parts"))
    for seed in (0, 1):
        one, other = (each(prompt, seed=seed, steps=3).pixels for each in (whole, parts))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("settings", [{}, STEPS], ids=["directions", "steps"])
def test_of_a_stopped_run(settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path)
    recipe["task"] |= settings
    same_pictures(recipe | {"training": {"batch_size": 16, "steps": 5}}, tmp_path)


@pytest.mark.parametrize("repeats", [1, 2])
def test_of_steps_that_the_first_weights_teach(
    repeats: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three steps of training make grey pictures, which are enough to compare.
    monkeypatch.setattr("groundup.tasks.generate_images.taught_steps._GREY", 0.0)
    base = tiny_run("unet", tmp_path)
    api.train(base, {"training.steps": 3}, runs=tmp_path)
    recipe = {key: value for key, value in base.items() if key not in ("model", "processor")}
    taught = {"mean_flow": True, "step_targets": "teacher", "teacher_steps": 3}
    taught |= {"whole_share": 0.5, "teacher_repeats": repeats}
    recipe |= {
        "name": "taught",
        "init": {"run": str(tmp_path / base["name"])},
        "task": {**base["task"], **taught, "steps": 3, "step_guidance": 1.5},
        "training": {"batch_size": 16, "steps": 5},
    }
    same_pictures(recipe, tmp_path)


@pytest.mark.parametrize("settings", [{}, STEPS], ids=["directions", "steps"])
def test_of_a_stopped_run_by_text(settings: dict[str, Any], tmp_path: Path) -> None:
    # Captions are taken away by the sample: others before the stop than after it.
    recipe = from_captions_run(tmp_path, caption_dropout=0.3, **settings)
    training = {"batch_size": 16, "steps": 5}
    same_pictures(recipe | {"training": training}, tmp_path, "a seven, written by hand")


@pytest.mark.parametrize("adapter", [None, {"rank": 2}], ids=["all weights", "lora"])
def test_of_a_stopped_fine_tuning(adapter: dict[str, Any] | None, tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path)
    api.train(recipe, {"training.steps": 3}, runs=tmp_path)
    sevens = [each for each in Arrays().examples("train", tmp_path) if each.target == 7][:12]
    pictures = np.stack([np.asarray(each.inputs) / 2 for each in sevens])
    np.savez(tmp_path / "grey.npz", x=pictures, y=np.full(12, 7))
    few = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    few |= {
        "name": "few",
        "init": {"run": str(tmp_path / "tiny")},
        "data": {"name": "arrays", "path": str(tmp_path / "grey.npz"), "fraction": 0.2},
        "training": {"batch_size": 4, "steps": 5},
    }
    few["machine"] = {**recipe["machine"], "micro_batch_size": 4}
    same_pictures(few if adapter is None else few | {"adapter": adapter}, tmp_path)
