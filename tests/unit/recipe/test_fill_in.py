"""A task's own defaults fill what a recipe leaves out, and are written into the run's recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.recipe.recipe import as_dict, load_recipe
from groundup.tasks.classify.task import Classify

RECIPE: dict[str, Any] = {
    "name": "digits",
    "model": "mlp",
    "task": "classify",
    "processor": "image",
    "data": "arrays",
    "training": {"epochs": 1},
}


@pytest.fixture
def own_task() -> Iterator[type[Classify]]:
    @registry.task("own_task")
    class OwnTask(Classify):
        pass

    yield OwnTask
    del registry._registered["task"]["own_task"]


@pytest.mark.parametrize("task", ["classify", "regression"])
def test_classifiers_and_regressions_leave_out_what_language_models_do(task: str) -> None:
    recipe = load_recipe({**RECIPE, "task": task})
    assert (recipe.optim.weight_decay, recipe.optim.clip_norm) == (0.0, None)
    assert recipe.optim.schedule == "constant"
    assert (recipe.evaluation.every, recipe.evaluation.batches) == ("epoch", None)
    assert recipe.checkpoints.every == "epoch"


def test_language_models_keep_theirs(recipe: dict[str, Any]) -> None:
    loaded = load_recipe({**recipe, "optim": {}, "evaluation": {}, "checkpoints": {}})
    assert (loaded.optim.weight_decay, loaded.optim.clip_norm) == (0.1, 1.0)
    assert loaded.optim.schedule == "cosine"
    assert (loaded.evaluation.every, loaded.evaluation.batches) == (200, 20)
    assert loaded.checkpoints.every == 200


def test_what_a_recipe_or_an_override_says_is_kept() -> None:
    given = {"optim": {"weight_decay": 0.1}, "evaluation": {"every": 7}}
    recipe = load_recipe({**RECIPE, **given}, {"optim.clip_norm": 1.0, "checkpoints.every": 5})
    assert (recipe.optim.weight_decay, recipe.optim.clip_norm) == (0.1, 1.0)
    assert (recipe.evaluation.every, recipe.checkpoints.every) == (7, 5)
    assert recipe.evaluation.batches is None


def test_a_run_reads_what_was_written_and_adds_nothing() -> None:
    written = as_dict(load_recipe(RECIPE))
    assert written["optim"]["clip_norm"] is None
    assert load_recipe(written, complete=True) == load_recipe(RECIPE)
    del written["evaluation"]["every"]  # a run of a version without this default
    assert load_recipe(written, complete=True).evaluation.every == 200


def test_a_user_s_task_may_have_its_own(
    own_task: type[Classify], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_task, "default_settings", {"training.patience": 3})
    assert load_recipe({**RECIPE, "task": "own_task"}).training.patience == 3
    for key in ("optim.wait_decay", "model.dropout", "optim"):
        monkeypatch.setattr(own_task, "default_settings", {key: 0.1})
        with pytest.raises(RecipeError, match=rf"^task own_task: has a default for '{key}', which"):
            load_recipe({**RECIPE, "task": "own_task"})
