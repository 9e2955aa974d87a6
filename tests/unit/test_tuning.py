"""Trials of a recipe: tried, counted, resumed, reported; and a learning rate found in one short run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import groundup
from groundup import api
from groundup.cli import app
from groundup.core import tuning
from groundup.core.lr_range import suggest
from groundup.core.recipe import as_dict, load_recipe

pytest.importorskip("optuna")
pytest.importorskip("sklearn")


@pytest.fixture
def digits() -> dict[str, Any]:
    """Three tiny trials on real digits."""
    return {
        **{"name": "digits", "model": {"name": "mlp", "hidden": [16]}, "task": "classify"},
        **{"processor": "image", "data": "arrays", "optim": {"name": "adam", "lr": 3e-3, "weight_decay": 0.0}},
        **{"budget": {"batch_size": 32, "steps": 12}, "every": {"evaluate": 4, "save": 100, "log": 4}},
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"}},
        "tune": {
            "metric": "accuracy",
            "trials": 3,
            "space": {
                "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
                "budget.batch_size": {"low": 16, "high": 48, "step": 16},
                "model.hidden": {"choices": [[8], [16, 16]]},
            },
        },
    }


def numbers_of(folder: Path) -> list[int]:
    """Return how many lines each trial's metrics have: a trial trained again would have more."""
    return sorted(len(path.read_text().splitlines()) for path in (folder / "trials").glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_three_trials_and_then_one_more(digits: dict[str, Any], tmp_path: Path) -> None:
    found = api.tune(digits, runs=tmp_path)
    folder = tmp_path / "digits-tune"
    assert found["trials"] == 3
    assert found["metric"] == "accuracy"
    assert set(found["settings"]) == set(digits["tune"]["space"])
    assert found["settings"]["model.hidden"] in ([8], [16, 16])
    assert found["settings"]["budget.batch_size"] in (16, 32, 48)
    best = load_recipe(found["recipe"])
    assert best.tune is None
    assert best.name == "digits-tuned"
    assert best.optim.lr == found["settings"]["optim.lr"]
    report = Path(found["report"]).read_text(encoding="utf-8")
    assert "History" in report
    assert "optim.lr" in report
    assert not re.search(r"<script|https?://(?!www\.w3)", report)
    before = numbers_of(folder)
    assert api.tune(digits, runs=tmp_path) == found
    assert numbers_of(folder) == before
    digits["tune"]["trials"] = 4
    assert api.tune(digits, runs=tmp_path)["trials"] == 4
    assert len(numbers_of(folder)) == len(before) + 1


@pytest.mark.slow
def test_the_same_seed_tries_the_same_values_and_a_stop_changes_nothing(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.tune(digits, runs=tmp_path / "whole")
    train, calls = tuning._train, []

    def killed(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(tuning, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        api.tune(digits, runs=tmp_path / "parts")
    again = api.tune(digits, runs=tmp_path / "parts")
    names = [{p.name for p in (tmp_path / n / "digits-tune" / "trials").iterdir()} for n in ("whole", "parts")]
    assert len(names[0] & names[1]) >= 2  # the one that was stopped was tried again with its own values
    assert again["trials"] == 3 + 1  # the stopped one is listed as failed


@pytest.mark.slow
def test_a_trial_worse_than_the_median_is_ended(digits: dict[str, Any], tmp_path: Path) -> None:
    space = {"optim.lr": {"low": 1e-9, "high": 1e-2, "log": True}}
    digits["tune"] = {"metric": "loss", "trials": 9, "space": space}
    found = api.tune(digits, runs=tmp_path)
    assert found["settings"]["optim.lr"] > 1e-5
    assert "<td>pruned</td>" in Path(found["report"]).read_text(encoding="utf-8")
    again = api.tune(digits, {"name": "patient", "tune.prune": False}, runs=tmp_path)
    assert "<td>pruned</td>" not in Path(again["report"]).read_text(encoding="utf-8")


def test_training_does_not_know_of_tuning(digits: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(digits, runs=tmp_path)
    assert "tune" not in yaml.safe_load((run.folder / "recipe.yaml").read_text(encoding="utf-8"))
    plain = {key: value for key, value in digits.items() if key != "tune"}
    groundup.train(plain, runs=tmp_path)
    assert "re-used" in (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    loaded = load_recipe(digits)
    assert load_recipe(as_dict(loaded)) == loaded


@pytest.mark.slow
def test_workers_share_the_trials(digits: dict[str, Any], tmp_path: Path) -> None:
    found = api.tune(digits, runs=tmp_path, workers=2)
    assert 3 <= found["trials"] <= 4  # both may begin the last one at once


def test_a_learning_rate_is_suggested_and_the_run_is_not_touched(digits: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text(yaml.safe_dump(digits), encoding="utf-8")
    done = CliRunner().invoke(app, ["tune", str(file), "--lr-range", "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert 1e-4 < found["learning_rate"] < 1.0
    assert "log10 of the learning rate" in Path(found["report"]).read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-tune"]
    assert [path.name for path in (tmp_path / "runs" / "digits-tune").iterdir()] == ["lr_range.html"]


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    assert suggest([1e-3, 1e-2, 0.1234, 1.0], [2.0, 1.5, 1.0, 9.0]) == 0.012
