"""What is said about a metric that is none, settings without effect, and counts that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import groundup
from groundup import api
from groundup.core.errors import RecipeError, TrainingError
from groundup.core.values import Loss, Term
from groundup.parallel.world import ALONE
from groundup.recipe.recipe import load_recipe
from groundup.training.accumulation import Accumulation


@pytest.mark.parametrize("metric", ["perplexty", "accuracy"])
def test_a_metric_that_the_task_does_not_have(
    recipe: dict[str, Any], tmp_path: Path, metric: str
) -> None:
    trainer = api.trainer(recipe, {"checkpoints.best_metric": metric}, runs=tmp_path)
    with pytest.raises(
        RecipeError,
        match=rf"^recipe\.checkpoints\.best_metric: '{metric}' is no metric .* there are: .*loss",
    ):
        trainer.fit()
    assert trainer.step == 0
    trainer.close()


def test_an_interval_is_a_number_of_steps_or_an_epoch(recipe: dict[str, Any]) -> None:
    for wrong in ("epochs", 0, 1.5):
        with pytest.raises(RecipeError, match=r"^recipe\.evaluation\.every"):
            load_recipe(recipe, {"evaluation.every": wrong})
    with pytest.raises(RecipeError, match=r"^recipe\.logging\.every"):
        load_recipe(recipe, {"logging.every": "epoch"})


def test_settings_without_effect(recipe: dict[str, Any]) -> None:
    with pytest.raises(
        RecipeError, match=r"min_improvement has no effect without patience\. Set patience"
    ):
        load_recipe(recipe, {"training.min_improvement": 0.1})
    with pytest.raises(RecipeError, match="ema_decay has no effect with average"):
        load_recipe(recipe, {"optim.ema_decay": 0.9})
    with pytest.raises(RecipeError, match="average_from has no effect with average"):
        load_recipe(recipe, {"optim.average": "ema", "optim.average_from": 0.5})


class Counting:
    """An objective whose ``counts`` says what it is told to."""

    name = "task counting"

    def __init__(self, told: dict[str, float] | None) -> None:
        self.told = told

    def counts(self, batch: Any) -> dict[str, float] | None:
        return None if self.told is None else dict(self.told)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            None,
            (
                r"task counting: its terms have different counts \{'a': 2\.0, 'b': 3\.0\}, but .*"
                r" define counts\(batch\)"
            ),
        ),
        ({"a": 2.0}, r"counts\(batch\) does not tell the count of b\. Return one for every term"),
        (
            {"a": 2.0, "b": 4.0},
            r"counts\(batch\) says 8 for b, but the loss counted 6\. Make both count the same",
        ),
    ],
)
def test_counts_that_do_not_fit(told: dict[str, float] | None, expected: str) -> None:
    objective = Accumulation(Counting(told), lambda: {}, 2, ALONE)  # type: ignore[arg-type]
    loss = Loss(
        {
            "a": Term(torch.tensor(1.0), torch.tensor(2.0)),
            "b": Term(torch.tensor(1.0), torch.tensor(3.0)),
        }
    )

    def step() -> None:
        for _ in objective.batches:
            objective.of(loss)
            objective.sums.add(loss)
        objective.means()

    with pytest.raises(TrainingError, match=expected):
        step()


def test_a_test_split_that_is_not_there(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"recipe\.evaluation\.test: the data has no test split of its own\. Remove it",
    ):
        groundup.train(recipe, {"evaluation.test": True}, runs=tmp_path)
