"""Runs that version 0.1.0 made: they open, evaluate and go on with the settings of today."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from groundup.runs.run import Run

SAVED = Path(__file__).parents[2] / "saved_runs"
NAMES = ["classifier", "language-model", "regression"]


@pytest.fixture
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a saved run, which the test may change."""
    return Path(shutil.copytree(SAVED / request.param, tmp_path / "runs" / request.param))


@pytest.mark.parametrize("saved", NAMES, indirect=True)
def test_a_saved_run_opens_with_the_names_of_today(saved: Path) -> None:
    run = Run.open(saved)
    assert run.recipe.training.steps == 4
    every = {"classifier": 200, "language-model": 2, "regression": "epoch"}[saved.name]
    assert run.recipe.evaluation.every == every
    assert run.recipe.machine.settled_micro_batch_size == 16
    run.check_same(run.recipe)
    assert run.finished
