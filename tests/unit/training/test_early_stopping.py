"""Which validation is the best, and what is said where there is none to rank by."""

from __future__ import annotations

import pytest

from groundup.core.errors import RecipeError
from groundup.recipe.sections import Training
from groundup.training.early_stopping import BestSoFar


def test_a_metric_that_no_validation_has() -> None:
    best = BestSoFar("acuracy", Training(steps=9))
    with pytest.raises(RecipeError) as caught:
        best.consider(1, {"loss": 1.0, "accuracy": 0.5})
    assert str(caught.value) == (
        "recipe.checkpoints.best_metric: 'acuracy' is no metric of this task's validation; did you"
        " mean 'accuracy'? there are: loss, accuracy. Name one of them."
    )
    assert best.step is None


def test_why_a_run_stops() -> None:
    best = BestSoFar("loss", Training(steps=9, patience=2, min_improvement=0.1))
    for step, loss in enumerate((2.0, 1.95, 1.91), 1):
        best.consider(step, {"loss": loss})
    assert best.stopped == (
        "loss has not improved by more than 0.1 in 2 validations (best: 1.91 at step 3)"
    )


def test_what_a_resume_goes_on_from() -> None:
    best = BestSoFar("accuracy", Training(steps=9, patience=3))
    for step, accuracy in enumerate((0.5, 0.75, 0.25), 1):
        best.consider(step, {"accuracy": accuracy})
    assert best.state_dict() == {
        "best_value": 0.75,
        "best_step": 2,
        "stopped": "",
        "patience": {"reference": 0.75, "waited": 1},
    }
