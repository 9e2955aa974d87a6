"""What is said about a search that cannot be made."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundup import api
from groundup.core.errors import (
    Interrupted,
    MissingExtraError,
    RecipeError,
    RunError,
    TrainingError,
)
from groundup.recipe.recipe import load_recipe
from groundup.tuning import search
from groundup.tuning.lr_range_test import suggest


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ({}, r"takes low and high, or choices\. Give one"),
        ({"low": 1}, r"takes low and high, or choices\. Give one"),
        ({"low": 1, "high": 2, "choices": [1]}, r"takes low and high, or choices\. Give one"),
        ({"choices": [1], "log": True}, r"log has no effect next to choices\. Remove it"),
        ({"low": 2, "high": 2}, r"low 2 is not below high 2\. Exchange or change them"),
        ({"low": 0, "high": 2, "log": True}, r"log needs a low above 0 and no step\. Change low"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, r"log needs a low above 0 and no step"),
        ({"low": 1, "hihg": 2}, r"did you mean 'high'\?"),
    ],
)
def test_a_space_that_cannot_be(
    recipe: dict[str, Any], dimension: dict[str, Any], expected: str
) -> None:
    recipe["tune"] = {"space": {"optim.lr": dimension}}
    with pytest.raises(RecipeError, match=expected):
        load_recipe(recipe)


def test_a_recipe_without_a_search(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"^recipe\.tune: is required and missing\. Add a section 'tune:'"
    ):
        api.tune(recipe, runs=tmp_path)
    assert list(tmp_path.glob("*-tune")) == []


@pytest.mark.parametrize(
    "space", [{"optim.lrr": {"low": 0.1, "high": 0.2}}, {"optim.lr": {"low": -1.0, "high": 0.2}}]
)
def test_a_space_that_is_none_of_the_recipes(
    recipe: dict[str, Any], tmp_path: Path, space: dict[str, Any]
) -> None:
    recipe["tune"] = {"space": space}
    with pytest.raises(RecipeError, match=r"^recipe\.optim\.lr"):
        api.tune(recipe, runs=tmp_path)


@pytest.mark.slow
def test_a_study_of_another_recipe(recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    recipe["tune"] = {"trials": 1, "space": {"optim.lr": {"low": 1e-3, "high": 1e-2}}}
    api.tune(recipe, runs=tmp_path)
    with pytest.raises(
        RunError,
        match=r"holds trials of another recipe or another space; nothing there was touched",
    ):
        api.tune(recipe, {"seed": 5}, runs=tmp_path)


@pytest.mark.slow
def test_no_trial_succeeds(recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    recipe["tune"] = {
        "trials": 2,
        "metric": "accuracy",
        "space": {"optim.lr": {"low": 1e-3, "high": 1e-2}},
    }
    with pytest.raises(
        RecipeError,
        match=r"^recipe\.checkpoints\.best_metric: 'accuracy' is no metric of this task",
    ):
        api.tune(recipe, runs=tmp_path)
    recipe |= {"name": "late", "tune": {**recipe["tune"], "timeout_s": 1e-9}}
    with pytest.raises(RunError, match=r"late-tune: no trial was finished\. Try again"):
        api.tune(recipe, runs=tmp_path)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            RunError("there", "is full", "Empty it"),
            RunError.exit_code,
            "there: is full. Empty it.\n",
        ),
        (Interrupted("there", "stopped by SIGTERM"), 130, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_worker_says_what_went_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fails(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(search, "_train_trials", fails)
    monkeypatch.setattr(search.signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as ended:
        search._work_alone({}, {}, Path(), nullcontext())
    assert ended.value.code == code
    assert capsys.readouterr().err == said


def test_workers_that_were_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        exitcode = 130

        def start(self) -> None: ...

        def is_alive(self) -> bool:
            return False

    context = SimpleNamespace(Lock=nullcontext, Process=lambda **arguments: Ended())
    monkeypatch.setattr(search.multiprocessing, "get_context", lambda how: context)
    with pytest.raises(
        Interrupted,
        match=r"runs: stopped by a signal; everything is saved\. Start the same command",
    ):
        search._work_together({}, {}, Path("runs"), 2)


def test_without_optuna(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    recipe["tune"] = {"space": {"optim.lr": {"low": 1e-3, "high": 1e-2}}}
    with pytest.raises(
        MissingExtraError, match=r"optuna: is not installed\. Install it with: .*groundup\[tune\]"
    ):
        api.tune(recipe, runs=tmp_path)


def test_a_loss_that_never_falls() -> None:
    for losses in ([], [1.0, 1.0, 2.0]):
        with pytest.raises(
            TrainingError, match=r"the loss never fell in . steps, so no rate can be suggested"
        ):
            suggest([0.1] * len(losses), losses)
