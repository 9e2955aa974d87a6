"""Every message of several tasks on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup import api
from groundup.core.errors import DataError, RecipeError, TrainingError
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.arrays import Arrays
from groundup.models.mlp import MLPConfig
from groundup.processors.class_targets import SingleLabel
from groundup.processors.image import ImageConfig
from groundup.processors.targets import MultiTaskTargets
from groundup.tasks.classify.task import Classify
from groundup.tasks.multitask.task import Multitask

TWO = {"digit": "classify", "loop": "classify"}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({}, r"recipe.task.tasks: is required and missing"),
        ({"tasks": {}}, "recipe.task.tasks: got {}"),
        ({"tasks": ["classify"]}, "recipe.task.tasks: got .*; allowed: an object"),
        (
            {"tasks": {"a": "clasify"}},
            r"recipe.task.tasks.a.name: there is no task 'clasify'; did you mean 'classify'\?",
        ),
        (
            {"tasks": {"a": {"label_smoothing": 0.1}}},
            r"recipe.task.tasks.a.name: is required and missing",
        ),
        (
            {"tasks": {"a": {"name": "classify", "smoothing": 0.1}}},
            r"recipe.task.tasks.a.smoothing: unknown key",
        ),
        (
            {"tasks": {"a": {"name": "classify", "label_smoothing": 2.0}}},
            r"recipe.task.tasks.a.label_smoothing: got 2.0",
        ),
        ({"tasks": {"a/b": "classify"}}, r"recipe.task.tasks.a/b: is no name; allowed: letters"),
        (
            {"tasks": {"a": "chat"}},
            r"recipe.task.tasks.a.name: is chat, which does not predict from the features",
        ),
        (
            {"tasks": {"a": {"name": "multitask", "tasks": TWO}}},
            r"recipe.task.tasks.a.name: is multitask, which does not predict",
        ),
        (
            {"tasks": TWO, "weights": {"digti": 1.0}},
            r"weights names 'digti', which is no task; did you mean 'digit'\?",
        ),
        (
            {"tasks": TWO, "weights": {"digit": 0.0}},
            r"weights gives task 'digit' 0.0; allowed: more than 0",
        ),
        (
            {"tasks": TWO, "weighting": "uncertainty", "weights": {"digit": 2.0}},
            'weights has no effect with weighting: "uncertainty"',
        ),
        (
            {"tasks": TWO, "gradnorm_alpha": 1.0},
            'gradnorm_alpha has no effect with weighting: "fixed"',
        ),
        ({"tasks": TWO, "gradnorm_lr": 1.0}, 'gradnorm_lr has no effect with weighting: "fixed"'),
    ],
)
def test_settings_that_mean_nothing(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        validate(Multitask, section, "recipe.task")


def test_a_task_that_augments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classify, "augments", property(lambda self: True))
    with pytest.raises(
        RecipeError, match=r"recipe.task.tasks.a: augments its examples, which has no effect within"
    ):
        validate(Multitask, {"tasks": {"a": "classify"}}, "recipe.task")


def test_targets_that_do_not_fit() -> None:
    task = Multitask(tasks={"digit": Classify(), "loop": Classify()})

    def fit(*targets: Any) -> Any:
        examples = [Example(f"{n}", np.eye(3), target) for n, target in enumerate(targets)]
        return task.fit_processor(ImageConfig().fit(lambda: iter(examples)), lambda: iter(examples))

    with pytest.raises(
        DataError, match="an example has the one target 5, but several tasks need a mapping"
    ):
        fit(5, 6)
    with pytest.raises(DataError, match="task loop: labels: no training example has any"):
        fit({"digit": 1}, {"digit": 2})
    processor = fit({"digit": 1, "loop": "y"}, {"digit": 2, "loop": "n"})
    with pytest.raises(
        DataError, match="task loop: labels: label 'maybe' is none of the training split's"
    ):
        task.encode([Example("a", np.eye(3), {"digit": 1, "loop": "maybe"})], processor)
    with pytest.raises(DataError, match="an example has the one target 'y'"):
        MultiTaskTargets({"loop": SingleLabel(["y", "n"])}).encode(["y"])
    linear = MLPConfig(hidden=()).complete_from(processor).build()
    gradnorm = Multitask(tasks=task.tasks, weighting="gradnorm")
    with pytest.raises(
        RecipeError,
        match=r"recipe.task.weighting: is gradnorm, .* the model has none. Use a model with",
    ):
        gradnorm.check_model(linear, processor)


def test_arrays_with_several_targets(tmp_path: Path) -> None:
    keys = {"digit": "y", "ink": "ink"}
    with pytest.raises(RecipeError, match="labels_keys has no effect without path"):
        validate(Arrays, {"labels_keys": keys}, "recipe.data")
    for other in ({"labels_path": "l"}, {"labels_key": "z"}):
        with pytest.raises(
            RecipeError, match=f"{next(iter(other))} has no effect with labels_keys. Remove one"
        ):
            validate(Arrays, {"path": "a.npz", "labels_keys": keys, **other}, "recipe.data")
    (tmp_path / "a.idx").write_bytes(b"")
    with pytest.raises(DataError, match=r"is no .npz, whose arrays data.labels_keys names"):
        Arrays(path=str(tmp_path / "a.idx"), labels_keys=keys).examples("train", tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2, 2)), y=np.zeros(3), ink=np.zeros((3, 2)))
    source = Arrays(path=str(tmp_path / "a.npz"), labels_keys=keys)
    with pytest.raises(
        DataError, match=r"3 inputs and labels of shape \(3, 2\); allowed: one label an input"
    ):
        source.examples("train", tmp_path)


def test_gradnorm_takes_whole_batches(tmp_path: Path) -> None:
    y = np.arange(60) % 2
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((60, 4, 4)), digit=y, loop=y)
    recipe = {
        **{"name": "a", "model": {"name": "mlp", "hidden": [4]}, "processor": "image"},
        **{"task": {"name": "multitask", "tasks": TWO, "weighting": "gradnorm"}},
        **{
            "data": {
                "name": "arrays",
                "path": str(tmp_path / "a.npz"),
                "labels_keys": {"digit": "digit", "loop": "loop"},
            }
        },
        **{
            "training": {"batch_size": 8, "steps": 1},
            "machine": {"threads": 1, "precision": "fp32", "micro_batch_size": 4},
        },
    }
    with pytest.raises(
        TrainingError, match="the loss of task 'multitask' with this model is no sum over examples"
    ):
        api.trainer(recipe, runs=tmp_path)
