"""A run of any registered model, its data augmented, goes on after an interruption as if there had
been none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from picture_runs import caption_run
from resuming import assert_equal, stopped_and_resumed
from tiny_runs import ENCODER_TASKS, MODELS, RANDOM, augmented, encoder_run, tiny_run

from groundup import api
from groundup.core.registry import names
from groundup.runs.run import Run

STEPS, STOP = 9, 4


def compare(recipe: dict[str, Any], runs: Path) -> None:
    stopped_and_resumed(
        recipe | {"training": {**recipe["training"], "steps": STEPS}}, runs, (STOP, STEPS)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", names("model"))
def test_every_model_resumes_exactly(name: str, tmp_path: Path) -> None:
    recipe = augmented(tiny_run(name, tmp_path), name)
    # Games draw in self-play, not in the forward pass.
    plain = ("resnet", "fsq_autoencoder", "detector", "policy_value")
    assert name in plain or set(RANDOM) & set(MODELS[name][1]), (
        "let its tiny run draw at random, as dropout does"
    )
    compare(recipe, tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reads"), [("rnn", "texts"), ("transformer_classifier", "frames")]
)
def test_models_of_both_tokens_and_frames(name: str, reads: str, tmp_path: Path) -> None:
    compare(augmented(tiny_run(name, tmp_path, reads=reads), name, reads), tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("task", ENCODER_TASKS)
def test_tasks_of_encoders_resume_exactly(task: str, tmp_path: Path) -> None:
    compare(encoder_run(task, tmp_path), tmp_path / "runs")


@pytest.mark.slow
def test_captions_and_pictures_resume_exactly(tmp_path: Path) -> None:
    compare(caption_run(tmp_path), tmp_path / "runs")


@pytest.mark.slow
def test_a_table_resumes_exactly(tmp_path: Path) -> None:
    compare(tiny_run("mlp", tmp_path, reads="numbers"), tmp_path / "runs")


@pytest.mark.slow
def test_several_micro_batches_resume_exactly(tmp_path: Path) -> None:
    recipe = augmented(tiny_run("vit", tmp_path), "vit")
    compare(recipe | {"machine": {**recipe["machine"], "micro_batch_size": 4}}, tmp_path / "runs")


class _StopError(Exception):
    """Ends a run as if it had been killed."""


@pytest.mark.slow
def test_averages_and_the_best_checkpoint_resume_exactly(tmp_path: Path) -> None:
    """With batch norm, whose statistics are averaged, too, and another process that goes on."""
    recipe = augmented(tiny_run("cnn", tmp_path), "cnn")
    recipe["optim"] |= {"average": "ema", "ema_decay": 0.7}
    recipe["evaluation"] = {"every": 3, "batches": 2}
    recipe["checkpoints"] = {"every": 2, "best_metric": "accuracy", "keep": 9}
    changes = {"training.steps": 12}
    whole = api.trainer(recipe, {**changes, "name": "whole"}, runs=tmp_path / "runs")
    first = api.trainer(recipe, changes, runs=tmp_path / "runs")
    whole.fit()

    def stop(row: dict[str, Any]) -> None:
        if row["kind"] == "evaluate" and row["step"] == 9:
            raise _StopError

    first.watch = stop
    with pytest.raises(_StopError):
        first.fit()
    folder = first.run.folder
    whole.close()
    first.close()
    assert Run.open(folder).checkpoints.newest_intact() == 8
    resume = "import sys; from groundup import api; api.resume(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(
        [sys.executable, "-c", resume, str(folder)],
        check=True,
        env=environment,
        capture_output=True,
    )
    runs = [whole.run, Run.open(folder)]
    assert runs[0].checkpoints.steps() == runs[1].checkpoints.steps()
    one, other = (run.checkpoints.load(12) for run in runs)
    assert_equal(one, other)
    assert one.state["best_step"] in runs[1].checkpoints.steps()
