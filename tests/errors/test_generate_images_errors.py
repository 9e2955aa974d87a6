"""What a user may get wrong in making pictures, and what the message says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import tiny_run

from groundup import api
from groundup.cli.decoding import choose_decoding
from groundup.core.errors import DataError, GroundupError, RecipeError
from groundup.core.settings import validate
from groundup.models.dit import DiTConfig
from groundup.models.unet import UNetConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageProcessor
from groundup.processors.labelled import Labelled
from groundup.tasks.generate_images.task import GenerateImages

PROCESSOR = Labelled(
    ImageProcessor((1, 8, 8), None, [0.5], [0.5]), SingleLabel(["cat", "dog"], counts=[1, 1]), 0
)
MODEL = UNetConfig(widths=(4,), groups=2, head_width=4, input_shape=(1, 8, 8), classes=2)


def make(prompt: str = "cat", settings: dict[str, Any] | None = None, **options: Any) -> None:
    torch.manual_seed(0)
    GenerateImages(**{"steps": 1, **(settings or {})}).predict(
        MODEL.build(), prompt, PROCESSOR, **options
    )


def test_a_class_that_the_run_does_not_know() -> None:
    problem = "^dgo: is no class of the run; did you mean 'dog'[?] known: cat, dog. Choose one of"
    with pytest.raises(DataError, match=problem):
        make("dgo")


def test_guidance_without_classes_or_without_pictures_that_have_none() -> None:
    with pytest.raises(DataError, match="guidance: is 2, but the run was trained without classes"):
        make("", {"condition": "none"}, guidance=2.0)
    with pytest.raises(DataError, match="guidance: is 2, but the run was trained with class_dropo"):
        make("cat", {"class_dropout": 0.0}, guidance=2.0)
    with pytest.raises(DataError, match=r"prompt: is empty, .* Ask for one of cat, dog"):
        make("", {"class_dropout": 0.0})
    with pytest.raises(DataError, match="cat: is asked for, but the run was trained without class"):
        make("cat", {"condition": "none"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"steps": 0}, "steps: is 0; allowed: 1 or more"),
        ({"count": -1}, "count: is -1; allowed: 1 or more"),
        ({"sampler": "ddim"}, "sampler: is ddim; allowed: heun, euler"),
        ({"guidance": -1.0}, "guidance: is -1.0; allowed: 0 or more"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        make("cat", **options)


def test_steps_that_were_not_learned() -> None:
    learned = {"mean_flow": True, "step_targets": "teacher", "teacher_steps": 6}
    with pytest.raises(DataError, match=r"steps: is 3; allowed: 1\. Correct or remove it"):
        make("cat", learned, steps=3)
    with pytest.raises(DataError, match="steps: is 4; allowed: 1, 2, 3, 6"):
        make("cat", {**learned, "whole_share": 0.5}, steps=4)


def test_a_teacher_that_has_learned_nothing(tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path)
    recipe["task"] |= {"mean_flow": True, "step_targets": "teacher", "steps": 1}
    problem = (
        r"recipe\.task\.step_targets: is teacher, but the weights that the run starts from make one"
        r" grey of all noise: a standard deviation of 0\.0.* start from it: init: {run: runs/NAME}"
    )
    trainer = api.trainer(recipe, runs=tmp_path)
    with pytest.raises(RecipeError, match=problem):
        next(iter(trainer.stream))


def test_sizes_that_a_model_cannot_halve_or_cut() -> None:
    problem = (
        "recipe.model.widths: has 3 sizes and patch 1, so that pictures are halved 2 times, but 28"
        r" x 30 pixels are no multiple of 4. Give fewer widths, .*pad_to \[28, 32\]"
    )
    with pytest.raises(RecipeError, match=problem):
        UNetConfig(widths=(8, 8, 8), head_width=8, input_shape=(1, 28, 30)).build()
    with pytest.raises(RecipeError, match="groups: is 8, which does not divide the width 12"):
        UNetConfig(widths=(8, 12), head_width=4, input_shape=(1, 8, 8)).build()
    with pytest.raises(RecipeError, match="head_width: is 32, which does not divide the width 16"):
        UNetConfig(widths=(16,), input_shape=(1, 8, 8)).build()
    with pytest.raises(
        RecipeError, match=r"recipe\.model\.patch: is 3, which divides not both sides"
    ):
        DiTConfig(patch=3, input_shape=(1, 8, 8)).build()
    for config in (UNetConfig(), DiTConfig()):
        with pytest.raises(RecipeError, match="input_shape is null, but no data has filled it in"):
            config.build()


def test_pictures_that_are_not_around_zero(tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path) | {"processor": "image"}
    problem = "recipe.processor.normalise: gives pictures without numbers below 0"
    with pytest.raises(RecipeError, match=problem):
        api.trainer(recipe, runs=tmp_path)


def test_a_model_that_makes_none(tmp_path: Path) -> None:
    recipe = tiny_run("unet", tmp_path) | {"model": {"name": "mlp", "hidden": [8]}}
    with pytest.raises(RecipeError, match=r"name: MLPClassifier makes no pictures\. Use unet"):
        api.trainer(recipe, runs=tmp_path)


def test_a_picture_without_a_class(tmp_path: Path) -> None:
    labels = np.array(["a", "b", "", "a"] * 10)
    np.savez(tmp_path / "some.npz", x=np.ones((40, 8, 8), np.uint8), y=labels)
    data = {"name": "arrays", "path": str(tmp_path / "some.npz")}
    with pytest.raises(DataError, match=r"labels: an example has no label\. Give it one"):
        api.trainer(tiny_run("unet", tmp_path) | {"data": data}, runs=tmp_path)


@pytest.mark.slow
def test_a_judge_of_other_pictures(tmp_path: Path) -> None:
    judge = tiny_run("mlp", tmp_path) | {"name": "judge"}
    judge["processor"] = {"name": "image", "pad_to": [10, 10]}
    folder = api.train(judge, {"training.steps": 1}, runs=tmp_path).folder
    recipe = tiny_run("unet", tmp_path)
    recipe["task"] |= {"steps": 1, "judge": str(folder), "evaluated": 20}
    run = api.train(recipe, {"training.steps": 1}, runs=tmp_path)
    with pytest.raises(RecipeError, match=r"task\.judge: is a run of MLPClassifier, but a classif"):
        api.evaluate(run.folder)


def test_options_of_pictures_are_refused_elsewhere(tmp_path: Path) -> None:
    run = api.train(tiny_run("mlp", tmp_path), {"training.steps": 1}, runs=tmp_path)
    problem = "--steps: has no effect: task classify draws no pictures so. Remove it"
    with pytest.raises(GroundupError, match=problem):
        choose_decoding(api.load(run.folder), {"steps": 3})
    run = api.train(tiny_run("dit", tmp_path), {"training.steps": 1, "name": "dit"}, runs=tmp_path)
    predictor = api.load(run.folder)
    assert choose_decoding(predictor, {"steps": 3, "seed": 1}) == {"steps": 3, "seed": 1}
    with pytest.raises(GroundupError, match="--top-k: has no effect: task generate_images writes"):
        choose_decoding(predictor, {"top_k": 3})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"guidance_interval": [0.6, 0.2]}, r"guidance_interval \[0\.6, 0\.2\] is empty. Turn"),
        (
            {"mean_flow": True, "step_guidance": 1.5, "guidance": 2.0},
            "step_guidance is 1.5 and guidance 2: pictures would be guided twice. Leave guidance",
        ),
        (
            {"mean_flow": True, "step_guidance": 1.5, "class_dropout": 0.0},
            "step_guidance needs pictures without a class. Raise class_dropout",
        ),
        (
            {"mean_flow": True, "step_targets": "teacher"},
            "steps is 50, but with step_targets teacher other steps are learned: allowed 1. Write",
        ),
        (
            {"mean_flow": True, "step_targets": "teacher", "whole_share": 0.5, "steps": 3},
            "steps is 3, but with step_targets teacher other steps .*: allowed 1, 2, 4, 8. Write",
        ),
        (
            {"mean_flow": True, "teacher_steps": 4},
            'teacher_steps has no effect with step_targets: "derivative"; it applies when',
        ),
    ],
)
def test_settings_that_do_not_fit_each_other(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(GenerateImages, settings, "recipe.task")
