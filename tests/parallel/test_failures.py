"""What is said, and what is lost, when a process of several is killed, stops or fails."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from launched import command, launch, ranks_of, rows, said_by_ranks, weights_digest, write_recipe
from tiny_runs import tiny_run

from groundup import api

pytestmark = pytest.mark.slow
STEPS = 400
FAILING = '''
"""A task that fails on the second process."""

import os

from groundup.core.errors import DataError
from groundup.core.registry import task
from groundup.tasks.classify.task import Classify


@task("fails_there")
class FailsThere(Classify):
    def forward(self, model, batch):
        self_calls.append(1)
        if os.environ.get("RANK") == "1" and len(self_calls) > 6:
            raise DataError("pictures.csv line 7", "has no label", "Add one")
        return super().forward(model, batch)


self_calls = []
'''


def _recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    recipe = tiny_run("mlp", folder)
    recipe |= {"training": {"batch_size": 16, "steps": STEPS}, "parallel": {"exact": True}}
    recipe |= {"checkpoints": {"every": 20}, "evaluation": {"every": STEPS}, **sections}
    recipe["machine"] = recipe["machine"] | {"micro_batch_size": 4}
    return recipe


def _start(folder: Path, recipe: Path) -> subprocess.Popen[str]:
    """Start a run on two processes that may start again, and wait for its first checkpoint."""
    started = subprocess.Popen(
        command(2, recipe, restarts=2),
        cwd=folder,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    first = folder / "runs" / recipe.stem / "checkpoints" / "step-00000020"
    end = time.monotonic() + 300
    while not first.exists() and started.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert first.exists(), started.communicate()[1]
    return started


def test_a_killed_process_costs_nothing(tmp_path: Path) -> None:
    whole = api.train(_recipe(tmp_path, name="whole"), runs=tmp_path / "runs")
    recipe = write_recipe(tmp_path, _recipe(tmp_path, name="killed"))
    started = _start(tmp_path, recipe)
    victims = ranks_of(started.pid)
    os.kill(victims[1], signal.SIGKILL)
    _, error = started.communicate(timeout=300)
    assert started.returncode == 0, error
    (sentence,) = said_by_ranks(error)
    named = rf"rank 0 \(process {victims[0]} on \S+\), step \d+, samples from \d+: "
    named += rf"rank 1 \(process {victims[1]} on \S+\) did not answer while \w+"
    assert re.match(named, sentence), sentence
    assert "killed: resumed from the checkpoint of step" in error
    assert weights_digest(tmp_path / "runs" / "killed", STEPS) == weights_digest(
        whole.folder, STEPS
    )
    # Each step once, and those after the checkpoint again.
    steps = [row["step"] for row in rows(tmp_path / "runs" / "killed", "train")]
    assert sorted(set(steps)) == [row["step"] for row in rows(whole.folder, "train")]


def test_a_process_that_stands_still_is_named_in_time(tmp_path: Path) -> None:
    parallel = {"exact": True, "timeout_s": 4}
    recipe = write_recipe(tmp_path, _recipe(tmp_path, name="stopped", parallel=parallel))
    started = _start(tmp_path, recipe)
    victims = ranks_of(started.pid)
    os.kill(victims[1], signal.SIGSTOP)
    assert started.stderr is not None
    begin = time.monotonic()
    sentence = next(line for line in started.stderr if line.startswith("rank "))
    waited = time.monotonic() - begin
    started.terminate()
    os.kill(victims[1], signal.SIGKILL)
    started.communicate(timeout=120)
    assert f"rank 1 (process {victims[1]} on" in sentence
    assert "did not answer while" in sentence
    assert waited < 4 + 5


def test_an_error_on_one_process_is_told_by_all(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    recipe = _recipe(tmp_path, name="fails", uses=["failing.py"], task={"name": "fails_there"})
    done = launch(tmp_path, 2, write_recipe(tmp_path, recipe))
    assert done.returncode == 6, done.stderr
    own, other = sorted(said_by_ranks(done.stderr), key=lambda line: line.startswith("rank 0"))
    assert re.match(
        r"rank 1 \(process \d+ on \S+\), step \d+, samples from \d+: pictures.csv line 7: has no"
        r" label. Add one\.",
        own,
    ), own
    assert re.search(r"rank 1 \(.*\) ended \(pictures.csv line 7: has no label. Add one\)", other)
    # Which of the two the agent sees first, and whether it has to end the other, is chance.
    last = r"groundup launch: rank [01] .* (ended with exit code [36]|was ended by SIGTERM) at"
    assert re.search(last, done.stderr)


def test_a_stop_that_is_asked_for_saves_once(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, _recipe(tmp_path, name="asked"))
    started = _start(tmp_path, recipe)
    started.send_signal(signal.SIGTERM)
    _, error = started.communicate(timeout=120)
    assert "Traceback" not in error
    done = api.resume(tmp_path / "runs" / "asked")
    whole = api.train(_recipe(tmp_path, name="whole"), runs=tmp_path / "runs")
    assert weights_digest(done.folder, STEPS) == weights_digest(whole.folder, STEPS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"batch_size": 15, "steps": 4}, "machine": {}},
            "15 samples cannot be shared by 2 processes",
        ),
        ({"parallel": {"replicate": 4}}, "asks for 4 processes (replicate 4), but there are 2"),
        ({"machine": {"micro_batch_size": 16}}, "16 does not divide the 8 samples of a batch"),
        (
            {"model": {"name": "cnn", "channels": [4], "batch_norm": True}, "machine": {}},
            "with this model is no sum over examples",
        ),
    ],
)
def test_what_two_processes_cannot_share(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = tiny_run("mlp", tmp_path) | changes
    done = launch(tmp_path, 2, write_recipe(tmp_path, recipe))
    assert done.returncode == 6, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
