"""Trials of a recipe: tried, counted, resumed, reported; and a learning rate found in one short
run."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import groundup
from groundup import api
from groundup.cli.main import app
from groundup.core.errors import Interrupted
from groundup.recipe.recipe import as_dict, load_recipe
from groundup.runs.run import Run
from groundup.tuning import search
from groundup.tuning.lr_range_test import suggest

MISSING = [name for name in ("optuna", "sklearn") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed")


@pytest.fixture
def digits() -> dict[str, Any]:
    """Three tiny trials on real digits."""
    return {
        **{"name": "digits", "model": {"name": "mlp", "hidden": [16]}, "task": "classify"},
        **{
            "processor": "image",
            "data": "arrays",
            "optim": {"name": "adam", "lr": 3e-3, "weight_decay": 0.0},
        },
        **{
            "training": {"batch_size": 32, "steps": 12},
            "logging": {"every": 4},
            "evaluation": {"every": 4},
            "checkpoints": {"every": 100},
        },
        **{"machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"}},
        "tune": {
            "metric": "accuracy",
            "trials": 3,
            "space": {
                "optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
                "training.batch_size": {"low": 16, "high": 48, "step": 16},
                "model.hidden": {"choices": [[8], [16, 16]]},
            },
        },
    }


def numbers_of(folder: Path) -> list[int]:
    """Return how many lines each trial's metrics have: a trial trained again would have more."""
    return sorted(
        len(path.read_text().splitlines()) for path in (folder / "trials").glob("*/metrics.jsonl")
    )


@pytest.mark.slow
def test_three_trials_and_then_one_more(digits: dict[str, Any], tmp_path: Path) -> None:
    found = api.tune(digits, runs=tmp_path)
    folder = tmp_path / "digits-tune"
    assert found["trials"] == 3
    assert found["metric"] == "accuracy"
    assert set(found["settings"]) == set(digits["tune"]["space"])
    assert found["settings"]["model.hidden"] in ([8], [16, 16])
    assert found["settings"]["training.batch_size"] in (16, 32, 48)
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


def trials_of(folder: Path) -> list[tuple[str, float | None, dict[str, Any], dict[int, float]]]:
    """Return how each trial that counts ended, in order: its state, value, settings and
    validations."""
    found = search.counted_trials(
        search.open_study(
            folder / "digits-tune", load_recipe(folder / "digits-tune" / "requested.yaml")
        )
    )
    return [(t.state.name, t.value, t.params, t.intermediate_values) for t in found]


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["killed", "Ctrl-C"])
def test_a_stop_in_the_middle_of_a_trial_changes_nothing(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    whole = api.tune(digits, runs=tmp_path / "whole")
    log, validations = Run.log, []

    def interrupted(run: Run, row: dict[str, Any]) -> None:
        log(run, row)
        validations.append(row["kind"])
        if (
            validations.count("evaluate") == 5 and row["kind"] == "evaluate"
        ):  # the second trial's second of three
            if stop == "killed":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        with pytest.raises(KeyboardInterrupt if stop == "killed" else Interrupted):
            api.tune(digits, runs=tmp_path / "parts")
    assert [state for state, *_ in trials_of(tmp_path / "parts")] == (
        ["COMPLETE", "RUNNING"] if stop == "killed" else ["COMPLETE"]
    )
    again = api.tune(digits, runs=tmp_path / "parts")
    assert trials_of(tmp_path / "parts") == trials_of(tmp_path / "whole")
    for name in ("value", "settings", "trials"):
        assert again[name] == whole[name]
    folders = [tmp_path / n / "digits-tune" / "trials" for n in ("whole", "parts")]
    assert len({frozenset(path.name for path in folder.iterdir()) for folder in folders}) == 1
    # a signal while a step is logged is heard after the next one
    resumed = f"resumed from the checkpoint of step {8 if stop == 'killed' else 9}"
    texts = [path.read_text(encoding="utf-8") for path in folders[1].glob("*/metrics.jsonl")]
    # a step is logged once its checkpoint is safe, so that either stop costs nothing
    assert sum(resumed in text for text in texts) == 1


@pytest.mark.slow
def test_only_the_best_trial_keeps_its_checkpoints_and_known_values_are_not_trained_again(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    digits["tune"] |= {"trials": 4, "space": {"model.hidden": {"choices": [[4], [16]]}}}
    found = api.tune(digits, runs=tmp_path)
    runs = list((tmp_path / "digits-tune" / "trials").iterdir())
    assert len(runs) <= 2 < found["trials"]
    assert [run for run in runs if (run / "checkpoints").exists()] == [Path(found["run"])]
    assert all(
        (run / "recipe.yaml").is_file() and (run / "metrics.jsonl").is_file() for run in runs
    )
    assert "resumed" not in "".join(
        (run / "metrics.jsonl").read_text(encoding="utf-8") for run in runs
    )
    api.tune(digits, {"tune.keep": "all", "name": "kept"}, runs=tmp_path)
    assert all(
        (run / "checkpoints").exists() for run in (tmp_path / "kept-tune" / "trials").iterdir()
    )


def test_two_trials_at_once_never_share_a_folder(digits: dict[str, Any], tmp_path: Path) -> None:
    digits["tune"]["space"] = {"model.hidden": {"choices": [[8]]}}
    recipe = load_recipe(digits)
    assert recipe.tune is not None
    study = search.open_study(tmp_path, recipe)
    first, second = (search._next_trial(study, recipe.tune) for _ in range(2))
    assert first.params == second.params
    assert second.user_attrs["run"] == f"{first.user_attrs['run']}-1"
    search.retry_unfinished(study)
    third = search._next_trial(study, recipe.tune)
    assert third.user_attrs["run"] == first.user_attrs["run"]
    assert len(search.counted_trials(study)) == 1


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
    assert found["trials"] == 3
    assert [state for state, *_ in trials_of(tmp_path)].count("RUNNING") == 0


@pytest.mark.slow
def test_a_learning_rate_is_suggested_and_the_run_is_not_touched(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text(yaml.safe_dump(digits), encoding="utf-8")
    done = CliRunner().invoke(
        app, ["tune", str(file), "--lr-range", "--runs", str(tmp_path / "runs")]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert 1e-4 < found["learning_rate"] < 1.0
    assert "log10 of the learning rate" in Path(found["report"]).read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits-tune"]
    assert [path.name for path in (tmp_path / "runs" / "digits-tune").iterdir()] == [
        "lr_range.html"
    ]


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    assert suggest([1e-3, 1e-2, 0.1234, 1.0], [2.0, 1.5, 1.0, 9.0]) == 0.012
