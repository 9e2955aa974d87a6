"""Runs that version 0.1.0 made: they open, evaluate and go on with the settings of today."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import tiny_run, write_patients

import groundup
from groundup.inference.predictor import Predictor
from groundup.runs.run import Run
from groundup.training import build

SAVED = Path(__file__).parents[2] / "saved_runs"
NAMES = ["classifier", "language-model", "regression"]
PATIENT = {"age": 48, "sex": 1, "bmi": 26, "bp": 95, "s1": 189, "s2": 116, "s3": 50, "s4": 4}
PATIENT |= {"s5": 4.6, "s6": 91}


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "given", "expected"),
    [
        ("classifier", np.zeros((8, 8)), "2"),
        ("regression", PATIENT, pytest.approx(255.15927, abs=1e-3)),
    ],
    indirect=["saved"],
)
def test_a_saved_run_predicts_what_it_did(saved: Path, given: Any, expected: Any) -> None:
    assert Predictor.load(saved)(given) == expected


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["language-model"], indirect=True)
def test_a_saved_language_model_writes_what_it_did(saved: Path) -> None:
    written = Predictor.load(saved)("The ", max_new_tokens=16)
    assert written.startswith("\ufffd7^0\u0241\ufffd\xa9")


@pytest.mark.slow
@pytest.mark.parametrize("saved", NAMES, indirect=True)
def test_a_saved_run_is_evaluated_and_goes_on(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_patients(tmp_path / "data")
    tiny_run("gpt", tmp_path / "data")  # the documents that the language model was trained on
    summary = groundup.evaluate(saved, limit=2)
    assert summary["runs"][0]["evaluation"]["step"] == 4
    run = Run.open(saved)
    longer = run.recipe.training.model_copy(update={"steps": 6, "epochs": None})
    run.write_recipe(run.recipe.model_copy(update={"training": longer}))
    trainer = build.build_trainer(Run.open(saved))
    try:
        assert trainer.resume()
        assert trainer.step == 4
        reports = list(trainer.steps())
    finally:
        trainer.close()
    assert [report.step for report in reports] == [4, 5]
    assert all(report.loss < 10 for report in reports)
