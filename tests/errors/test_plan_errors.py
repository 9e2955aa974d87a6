"""Settings next to the data's size and the run's length: said before the first step. A start that is
refused leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import groundup
from groundup import api
from groundup.core.errors import DataError, GroundupError, RecipeError, RunError
from groundup.recipe.recipe import load_recipe
from groundup.training.plan_checks import check_layers, check_plan

LONG = {"evaluation.every": 1, "optim.warmup_steps": 0, "logging.every": 1, "checkpoints.every": 9}


def notes(recipe: dict[str, Any], samples: int, steps: int, **settings: Any) -> str:
    changed = {**LONG, **{key.replace("__", "."): value for key, value in settings.items()}}
    return "\n".join(check_plan(load_recipe(recipe, changed), samples, steps))


def test_a_plan_that_fits(recipe: dict[str, Any]) -> None:
    assert notes(recipe, 1000, 50, training__patience=5) == ""


def test_a_batch_larger_than_the_data(recipe: dict[str, Any]) -> None:
    said = notes(
        recipe,
        76,
        1,
        training__batch_size=512,
        training__steps=None,
        training__epochs=2,
        checkpoints__every=1,
    )
    assert said == (
        "training.batch_size 512 is more than the training split's 76 rows: each update takes every"
        " one 6.74 times, and the run, of 1 update, goes over the data 6.74 times"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"training__steps": None, "training__epochs": 0.001},
            "training.epochs 0.001 is less than a batch (1 rows): one update of",
        ),
        (
            {"training__steps": None, "training__samples": 3},
            "training.samples 3 is less than a batch (3 rows): one update of",
        ),
        (
            {"optim__warmup_steps": 100},
            "optim.warmup_steps 100 is not below the run's 50 updates: the learning rate ends at"
            " 0.0015, below optim.lr, and never falls",
        ),
        (
            {"optim__schedule": "wsd", "optim__decay_fraction": 0.9, "optim__warmup_steps": 20},
            "The decay begins after the warm-up and takes 30",
        ),
        (
            {"optim__average": "swa", "optim__average_from": 0.99},
            "optim.average swa is of 1 update: nothing is averaged",
        ),
        (
            {"evaluation__every": 99, "samples__every": 60, "samples__prompts": ["a"]},
            "evaluation.every 99, samples.every 60 are more than the run's 50 updates: what it sets"
            " happens once, after the last",
        ),
        (
            {"training__patience": 5, "evaluation__every": 10},
            "training.patience 5 cannot stop the run early: it has 5 validations",
        ),
        (
            {"training__patience": 1, "evaluation__every": "epoch"},
            "training.patience 1 cannot stop the run early: it has 1 validation",
        ),
    ],
)
def test_what_will_not_happen(recipe: dict[str, Any], settings: Any, expected: str) -> None:
    assert expected in notes(recipe, 1000, 50, **settings)


def test_a_context_longer_than_every_document(recipe: dict[str, Any]) -> None:
    known = load_recipe(recipe, LONG)
    assert check_plan(known, 1000, 50, 33) == []
    assert check_plan(known, 1000, 50, 20) == [
        "model.context_length 32 is more than the longest document has, 20 tokens: what is further"
        " apart is never learned"
    ]


def test_layers_that_stay_frozen() -> None:
    assert check_layers(lambda step: min(3, step // 10), 50) == []
    assert "release 1 of 3 levels; the others stay frozen to the end" in str(
        check_layers(lambda step: min(3, step // 10), 20)
    )


def test_defaults_are_not_spoken_of(recipe: dict[str, Any]) -> None:
    for section in ("evaluation", "logging", "checkpoints", "samples"):
        recipe.pop(section, None)
    assert check_plan(load_recipe(recipe, {"optim.warmup_steps": 0}), 1000, 2) == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("samples.prompts", ["a"], "recipe.samples.prompts: has no effect without samples.every"),
        ("samples.every", 5, "recipe.samples.every: is 5, but there are no samples.prompts"),
        ("init.checkpoint", "best", "recipe.init.checkpoint: has no effect without init.run"),
    ],
)
def test_settings_that_mean_nothing_alone(
    recipe: dict[str, Any], tmp_path: Path, key: str, value: Any, expected: str
) -> None:
    recipe.pop("samples", None)
    for verb in (
        lambda: groundup.train(recipe, {key: value}, runs=tmp_path / "runs"),
        lambda: api.describe(load_recipe(recipe, {key: value})),
    ):
        with pytest.raises(RecipeError) as caught:
            verb()
        assert expected in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_will_not_happen_is_in_the_log(
    recipe: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = groundup.train(recipe, {"training.patience": 50}, runs=tmp_path)
    assert "training.patience 50 cannot stop the run early" in caplog.text
    text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.count("cannot stop the run early") == 1
    groundup.train(recipe, {"training.patience": 50}, runs=tmp_path)  # nothing is said again
    text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.count("cannot stop the run early") == 1


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("data.path", "nowhere", DataError),
        ("checkpoints.best_metric", "accurracy", RecipeError),
        ("evaluation.test", True, RecipeError),
        ("data.fraction", 0.0, DataError),
        ("init.train_layers", 99, RecipeError),
        ("optim.layer_decay", 0.5, GroundupError),
    ],
)
@pytest.mark.slow
def test_a_refused_start_leaves_nothing_behind(
    recipe: dict[str, Any], tmp_path: Path, key: str, value: Any, error: type[Exception]
) -> None:
    if key == "optim.layer_decay":
        recipe["model"] = {"name": "bag_of_ngrams"}
    with pytest.raises(error):
        groundup.train(recipe, {key: value}, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_trainer_that_cannot_be_made_leaves_nothing(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(DataError):
        groundup.trainer(recipe, {"data.path": "nowhere"}, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_of_the_users_stays(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError):
        groundup.train(recipe, runs=tmp_path)
    assert (tmp_path / "small" / "notes.txt").read_text(encoding="utf-8") == "mine"
