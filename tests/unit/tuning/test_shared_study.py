"""A study that several processes or machines work on: no trial twice, none lost."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from groundup import api
from groundup.core.errors import RecipeError, RunError
from groundup.recipe.recipe import load_recipe
from groundup.tuning import search, shared_study
from groundup.tuning.shared_study import LostTrials, beat
from groundup.tuning.study import counted_trials, open_study, require_optuna, retry_lost

MISSING = [name for name in ("optuna", "sklearn") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed")


@pytest.fixture
def digits(tmp_path: Path) -> dict[str, Any]:
    """Tiny trials on real digits, in a study on a shared disk."""
    return {
        "name": "digits",
        "model": {"name": "mlp", "hidden": [8]},
        "task": "classify",
        "processor": "image",
        "data": "arrays",
        "optim": {"name": "adam", "lr": 3e-3, "weight_decay": 0.0},
        "training": {"batch_size": 32, "steps": 8},
        "logging": {"every": 4},
        "evaluation": {"every": 4},
        "checkpoints": {"every": 100},
        "machine": {"precision": "fp32", "threads": 1, "compile": False, "device": "cpu"},
        "tune": {
            "metric": "accuracy",
            "trials": 4,
            "prune": False,
            "storage": str(tmp_path / "disk" / "study.jsonl"),
            "space": {"optim.lr": {"low": 1e-4, "high": 1e-1, "log": True}},
        },
    }


def study_of(recipe: dict[str, Any], folder: Path) -> Any:
    return open_study(folder, load_recipe(recipe))


def start(recipe: dict[str, Any], folder: Path) -> subprocess.Popen[str]:
    """One machine's command."""
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "groundup", "tune", str(path), "--runs", str(folder / "runs")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "database"])
def test_two_commands_share_the_trials(digits: dict[str, Any], tmp_path: Path, kind: str) -> None:
    if kind == "database":
        digits["tune"]["storage"] = f"sqlite:///{tmp_path}/study.db"
    both = [start(digits, tmp_path / name) for name in ("one", "two")]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trials = counted_trials(study_of(digits, tmp_path))
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    # no values twice, and each trained by one of the two alone
    assert len({trial.params["optim.lr"] for trial in trials}) == 4
    folders = [path.name for path in tmp_path.glob("*/runs/digits-tune/trials/*")]
    assert sorted(folders) == sorted(trial.user_attrs["run"] for trial in trials)
    found = [json.loads(out) for out, _ in outputs]
    assert found[0]["value"] == found[1]["value"] == max(trial.value for trial in trials)
    assert [each["trials"] for each in found] == [4, 4]


def _open_at_once(url: str, begin: Any, found: Any) -> None:
    begin.wait()
    try:
        shared_study.open_storage(url, Path(), require_optuna())
        found.put("opened")
    except RecipeError as error:
        found.put(str(error))


@pytest.mark.slow
def test_workers_that_begin_at_once_make_one_database(tmp_path: Path) -> None:
    require_optuna()  # before the processes are made, so that they begin together
    context = multiprocessing.get_context("fork")
    for attempt in range(3):
        begin, found = context.Barrier(4), context.Queue()
        arguments = (f"sqlite:///{tmp_path}/{attempt}.db", begin, found)
        workers = [context.Process(target=_open_at_once, args=arguments) for _ in range(4)]
        for worker in workers:
            worker.start()
        assert [found.get(timeout=120) for _ in workers] == ["opened"] * 4
        for worker in workers:
            worker.join(60)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_tried_again_by_another(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    digits["training"]["steps"] = 100_000
    digits["tune"]["trials"] = 2
    killed = start(digits, tmp_path / "killed")
    until = time.monotonic() + 120
    study = study_of(digits, tmp_path)
    begun = None
    while begun is None and time.monotonic() < until:
        time.sleep(0.3)
        begun = next((each for each in counted_trials(study) if "run" in each.user_attrs), None)
    assert begun is not None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # the values of the trial that was begun are tried again, first of all
    recipe = load_recipe(digits)
    assert recipe.tune is not None
    study = open_study(tmp_path, recipe)
    assert retry_lost(study, LostTrials()) == 0
    first = search._next_trial(study, recipe.tune)
    assert first.params == begun.params
    assert first.user_attrs["run"] == begun.user_attrs["run"]
    second = search._next_trial(study, recipe.tune)
    assert second.params != first.params
    assert search._next_trial(study, recipe.tune) is None
    states = [trial.state.name for trial in study.get_trials()]
    assert sorted(states) == ["FAIL", "RUNNING", "RUNNING"]


def test_a_trial_without_a_beat_is_lost(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this process's own clock, whatever those of others say."""
    recipe = load_recipe(digits)
    assert recipe.tune is not None
    study = open_study(tmp_path, recipe)
    trial = search._next_trial(study, recipe.tune)
    trial.set_user_attr("owner", "another-machine 1")
    now = 1000.0
    monkeypatch.setattr(shared_study.time, "monotonic", lambda: now)
    lost = LostTrials()
    assert retry_lost(study, lost) == 1
    now += shared_study.GRACE_S - 1
    trial.set_user_attr("beat", 1)
    assert retry_lost(study, lost) == 1
    now += shared_study.GRACE_S - 1
    assert retry_lost(study, lost) == 1
    now += 2
    other = open_study(tmp_path, recipe)
    assert retry_lost(study, lost) == 0
    assert [each.state.name for each in other.get_trials()] == ["FAIL", "WAITING"]
    # found by two at once, it is tried again once
    lost._seen[0] = (1, now - 2 * shared_study.GRACE_S)
    monkeypatch.setattr(lost, "find", lambda running: [trial])
    retry_lost(other, lost)
    assert [each.state.name for each in other.get_trials()] == ["FAIL", "WAITING"]
    # and whoever had it hears of it at its end
    search._end_trial(study, trial, 0.5, None)
    assert study.get_trials()[0].value is None
    assert search._note_error(trial, RunError("x", "y", "z")) is False


def test_only_processes_that_can_be_seen_from_here_are_found_gone() -> None:
    name, process = shared_study.owner().rsplit(" ", 1)
    assert int(process) == os.getpid()
    assert not shared_study._is_gone(f"{name} {os.getpid()}")
    assert shared_study._is_gone(f"{name} 999999999")
    # another container of the same host's name, in which that process may well be
    assert not shared_study._is_gone(f"{name[:-8]}00000000 999999999")
    assert not shared_study._is_gone(None)


def test_a_trial_at_work_beats(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "BEAT_S", 0.01)
    recipe = load_recipe(digits)
    assert recipe.tune is not None
    study = open_study(tmp_path, recipe)
    trial = search._next_trial(study, recipe.tune)
    assert trial.user_attrs["owner"].endswith(f" {os.getpid()}")
    with beat(trial):
        until = time.monotonic() + 30
        while study.get_trials()[0].user_attrs.get("beat", 0) < 2 and time.monotonic() < until:
            time.sleep(0.02)
    assert study.get_trials()[0].user_attrs["beat"] >= 2


def test_a_trial_that_was_one_too_many_is_given_back(
    digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits["tune"]["trials"] = 1
    recipe = load_recipe(digits)
    assert recipe.tune is not None
    study = open_study(tmp_path, recipe)
    other = open_study(tmp_path, recipe)
    ask = study.ask

    def late() -> Any:
        search._next_trial(other, recipe.tune)  # between the look and the question
        return ask()

    monkeypatch.setattr(study, "ask", late)
    assert search._next_trial(study, recipe.tune) is None
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "FAIL"]
    assert len(counted_trials(study)) == 1


def test_a_shared_study_of_another_recipe_is_refused(
    digits: dict[str, Any], tmp_path: Path
) -> None:
    study = study_of(digits, tmp_path)
    study.set_user_attr("recipe", "name: other")
    sentence = re.escape("holds the study 'digits' of another recipe or another space; nothing")
    with pytest.raises(RunError, match=sentence):
        api.tune(digits, runs=tmp_path / "runs")


@pytest.mark.parametrize(
    "url", ["nosuch://me:secret@host/studies", "sqlite:////nowhere/at/all/study.db"]
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    digits: dict[str, Any], tmp_path: Path, url: str
) -> None:
    digits["tune"]["storage"] = url
    with pytest.raises(RecipeError, match=r"tune\.storage.* cannot be opened") as caught:
        api.tune(digits, runs=tmp_path / "runs")
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.rglob("requested.yaml"))
