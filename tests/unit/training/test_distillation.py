"""A run that learns from a teacher: what is minimised, what is saved, what is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from resuming import stopped_and_resumed
from tiny_runs import tiny_run

import groundup
from groundup.core.errors import CheckpointError, RecipeError
from groundup.data.sources.arrays import Arrays
from groundup.recipe.recipe import load_recipe
from groundup.recipe.sections import Distill
from groundup.runs.run import Run
from groundup.tasks.classify.task import Classify
from groundup.tasks.regression import Regression
from groundup.training.distillation import divergence
from groundup.training.load_teacher import _check_predictions


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_the_divergence_is_pytorchs(kind: Any) -> None:
    torch.manual_seed(0)
    student, teacher = (
        torch.randn(5, 7, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 7).double(),
    )
    own, other = F.log_softmax(student / 3, -1), F.log_softmax(teacher / 3, -1)
    first, second = (own, other) if kind == "forward" else (other, own)
    expected = 9 * F.kl_div(first, second, reduction="sum", log_target=True)
    found = divergence(student, teacher, Distill(teacher="t", temperature=3.0, divergence=kind))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, student)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert divergence(teacher, teacher, Distill(teacher="t")).abs() < 1e-12


def taught(recipe: dict[str, Any], teacher: Path, **distill: Any) -> dict[str, Any]:
    """Return the recipe of a student, with the teacher's processor."""
    kept = {key: value for key, value in recipe.items() if key != "processor"}
    return {**kept, "name": "student", "distill": {"teacher": str(teacher), **distill}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "mlp"])
def test_exact_resuming_any_split_of_work_and_judging_without_the_teacher(
    name: str, tmp_path: Path
) -> None:
    recipe = tiny_run(name, tmp_path)
    recipe["training"] = {"batch_size": 16, "steps": 4}
    teacher = groundup.train({**recipe, "name": "teacher"}, runs=tmp_path / "runs").folder
    student = taught(recipe, teacher)
    end = stopped_and_resumed(student, tmp_path / "resumed", (2, 4))
    assert end.state["teacher"]["sha256"]
    assert not [key for key in end.model if "teacher" in key]

    still = {**student, "model": {**student["model"], "dropout": 0.0}}
    losses = []
    for part in (16, 4):
        machine = {**still["machine"], "micro_batch_size": part}
        trainer = groundup.trainer(
            {**still, "name": f"parts{part}", "machine": machine}, runs=tmp_path / "runs"
        )
        losses.append([list(report.losses.values()) for report in trainer.steps()])
        trainer.close()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4, atol=1e-6)
    run = groundup.train(student, runs=tmp_path / "runs")
    shutil.rmtree(teacher)
    assert groundup.load(run.folder).step == 4


@pytest.mark.slow
def test_another_teacher_under_the_same_name(tmp_path: Path) -> None:
    recipe = tiny_run("mlp", tmp_path)
    recipe["training"] = {"batch_size": 16, "steps": 1}
    teacher = groundup.train({**recipe, "name": "teacher"}, runs=tmp_path).folder
    trainer = groundup.trainer(taught(recipe, teacher), runs=tmp_path)
    next(iter(trainer.steps()))
    trainer.save()
    trainer.close()
    shutil.rmtree(teacher)
    groundup.train({**recipe, "name": "teacher", "seed": 3}, runs=tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"learned from other weights than .*teacher holds at step 1\. Restore",
    ):
        groundup.trainer(taught(recipe, teacher), runs=tmp_path)


@pytest.mark.slow
def test_teachers_that_do_not_fit(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"distill\.teacher: .*nobody is not a run .*Train it first"
    ):
        load_recipe(taught(recipe, tmp_path / "nobody"))
    recipe["training"] = {"batch_size": 4, "steps": 1}
    teacher = groundup.train(recipe, runs=tmp_path).folder

    def says(expected: str, changed: dict[str, Any]) -> None:
        with pytest.raises(RecipeError, match=expected):
            groundup.trainer({**taught(recipe, teacher), **changed}, runs=tmp_path / "students")
        shutil.rmtree(tmp_path / "students", ignore_errors=True)

    says(
        r"recipe\.processor\.name: is 'characters', but the teacher's is 'bytes'\. Leave",
        {"processor": "characters"},
    )
    says(
        r"distill\.teacher: reads 32 tokens, but this model 64\. Set model\.context_length to at"
        r" most 32",
        {"model": {**recipe["model"], "context_length": 64}},
    )
    with pytest.raises(
        RecipeError, match="was trained on task language_modeling, but this run predicts classes"
    ):
        _check_predictions(Classify(), None, Run.open(teacher))
    with pytest.raises(
        RecipeError,
        match=r"recipe\.distill: task regression cannot learn from a teacher",
    ):
        _check_predictions(Regression(), None, Run.open(teacher))
    other = groundup.train(
        {**recipe, "name": "other", "processor": "characters"}, runs=tmp_path
    ).folder
    init = {"init": {"run": str(other)}, "model": {}, "processor": {}}
    says(r"distill\.teacher: has \d+ tokens, other than this run's processor", init)


@pytest.mark.slow
def test_a_teacher_helps_a_small_student_with_few_examples(tmp_path: Path) -> None:
    """A classifier of 16 hidden units that sees 100 digits; its teacher saw all of the training
    split."""
    train = Arrays().examples("train", tmp_path)
    held_out = list(Arrays().examples("validation", tmp_path))
    np.savez(
        tmp_path / "few.npz",
        x=np.stack([e.inputs for e in train[:100]]),
        y=[e.target for e in train[:100]],
    )
    recipe = tiny_run("mlp", tmp_path, {"hidden": [128], "dropout": 0.0, "norm": "none"})
    recipe |= {
        "logging": {"every": 100_000},
        "evaluation": {"every": 100_000},
        "optim": {"lr": 1e-2, "weight_decay": 0.01},
    }
    big = {**recipe, "name": "teacher", "training": {"batch_size": 64, "steps": 200}}
    big["machine"] = {**recipe["machine"], "micro_batch_size": 64}
    teacher = groundup.train(big, runs=tmp_path).folder
    recipe |= {
        "model": {"name": "mlp", "hidden": [16]},
        "data": {"name": "arrays", "path": str(tmp_path / "few.npz")},
    }
    recipe["training"] = {"batch_size": 16, "steps": 600}

    def accuracy(made: dict[str, Any]) -> float:
        predictor = groundup.load(groundup.train(made, runs=tmp_path).folder, "last")
        found = predictor([example.inputs for example in held_out])
        return float(
            np.mean([label == str(e.target) for label, e in zip(found, held_out, strict=True)])
        )

    alone, helped = (
        accuracy({**recipe, "name": "alone"}),
        accuracy(taught(recipe, teacher, temperature=4.0, weight=0.9)),
    )
    assert helped >= alone + 0.03, (alone, helped)
