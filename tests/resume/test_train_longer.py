"""A run that is trained longer than it was to be: the same as one that was to be so long from the
beginning, to the last bit, where its schedule allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resuming import assert_equal

import groundup
from groundup import api
from groundup.core.errors import RunError
from groundup.runs.run import Run

pytestmark = pytest.mark.slow


def _recipe(tmp_path: Path, **optim: Any) -> dict[str, Any]:
    folder = tmp_path / "texts"
    folder.mkdir(exist_ok=True)
    for n in range(12):
        words = " ".join(f"word{n * k % 31}" for k in range(60))
        (folder / f"{n}.txt").write_text(words, encoding="utf-8")
    return {
        "name": "run",
        "model": {
            "name": "gpt",
            "layers": 1,
            "width": 16,
            "heads": 2,
            "context_length": 16,
            "dropout": 0.1,
        },
        "task": "language_modeling",
        "processor": "bytes",
        "data": {"name": "text", "path": str(folder)},
        "optim": {"lr": 1e-3, "schedule": "constant", **optim},
        "training": {"batch_size": 4, "steps": 6},
        "checkpoints": {"every": 2, "keep": 4},
        "machine": {"threads": 1, "micro_batch_size": 2, "compile": False, "precision": "fp32"},
    }


def _longer(recipe: dict[str, Any], steps: int) -> dict[str, Any]:
    return {**recipe, "training": {**recipe["training"], "steps": steps}}


def _assert_same_end(one: Run, other: Run, step: int) -> None:
    assert_equal(one.checkpoints.load(step), other.checkpoints.load(step))


@pytest.mark.parametrize(
    "optim",
    [
        {},
        {"name": "sgd", "momentum": 0.9, "warmup_steps": 4},
        {"name": "muon", "average": "ema"},
        {"schedule": "wsd", "decay_fraction": 0.1},
    ],
)
@pytest.mark.parametrize("how", ["recipe", "resume"])
def test_more_steps_are_those_of_one_longer_run(
    tmp_path: Path, optim: dict[str, Any], how: str
) -> None:
    recipe = _recipe(tmp_path, **optim)
    run = api.train(recipe, runs=tmp_path / "runs")
    assert run.finished
    if how == "recipe":
        run = api.train(_longer(recipe, 12), runs=tmp_path / "runs")
    else:
        run = api.resume(run.folder, {"training.steps": 12})
    whole = api.train(_longer(recipe, 12), runs=tmp_path / "whole")
    _assert_same_end(run, whole, 12)
    assert run.finished
    assert groundup.api.train(_longer(recipe, 12), runs=tmp_path / "runs").finished


def test_a_run_goes_back_to_before_its_rate_came_down(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, schedule="wsd", decay_fraction=0.5)
    api.train(recipe, runs=tmp_path / "runs")
    run = api.train(_longer(recipe, 12), runs=tmp_path / "runs")
    whole = api.train(_longer(recipe, 12), runs=tmp_path / "whole")
    _assert_same_end(run, whole, 12)
    said = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert "trained for 12 steps instead of 6, from step 4 on, before the rate came down" in said


def test_an_epoch_more(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    recipe["training"] = {"batch_size": 4, "epochs": 1}
    run = api.train(recipe, runs=tmp_path / "runs")
    first = run.checkpoints.steps()[-1]
    run = api.resume(run.folder, {"training.epochs": 2})
    assert run.checkpoints.steps()[-1] in (2 * first - 1, 2 * first)
    assert run.recipe.training.epochs == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optim": {"schedule": "cosine"}}, r"its cosine schedule was made for 6, and from step 2"),
        ({"optim": {"schedule": "linear"}}, r"its linear schedule was made for 6"),
        ({"optim": {"average": "swa"}}, r"optim.average: swa began at a share of its steps"),
        (
            {"training": {"batch_size": 4, "steps": 6, "patience": 1, "min_improvement": 9.0}},
            r"training.patience has ended it, because loss has not improved",
        ),
    ],
)
def test_where_more_steps_are_not_those_of_a_longer_run_it_says_what_to_do(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    recipe = _recipe(tmp_path, **changes.get("optim", {}))
    recipe |= {"training": changes.get("training", recipe["training"])}
    recipe["evaluation"] = {"every": 2}
    run = api.train(recipe, runs=tmp_path)
    before = sorted(path.stat().st_mtime_ns for path in run.checkpoints.folder.rglob("*"))
    with pytest.raises(RunError, match=problem) as error:
        api.train(_longer(recipe, 12), runs=tmp_path)
    assert sorted(path.stat().st_mtime_ns for path in run.checkpoints.folder.rglob("*")) == before
    assert f"with name=run-2 and init.run={run.folder}" in error.value.remedy
    again = _longer(recipe, 12) | {"name": "run-2", "init": {"run": str(run.folder)}}
    assert api.train(again, runs=tmp_path).finished


def test_fewer_steps_than_are_done_are_refused(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    run = api.train(recipe, runs=tmp_path)
    with pytest.raises(RunError, match=r"has done 6 steps; allowed: more, got 3; nothing there"):
        api.resume(run.folder, {"training.steps": 3})
    with pytest.raises(RunError, match=r"optim.lr cannot change in a run; allowed: training.steps"):
        api.resume(run.folder, {"optim.lr": 1.0})
