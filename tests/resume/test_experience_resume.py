"""A run whose examples its own weights make, killed anywhere: those weights are gone, and it goes on
bit for bit all the same, from what its checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from guesses import guessing_run
from killing import kill_during_save, kill_while_training, train_in_child, weights_sha256
from own_parts import forget_own_parts
from resuming import stopped_and_resumed
from rewarded import adapted_rewarded_run, rewarded_run

import groundup
from groundup.core.errors import CheckpointError, RunError

pytestmark = pytest.mark.slow
STEPS = 30


# Rows are made every second step: some stops are where they are made, others between.
@pytest.mark.parametrize("micro_batch_size", [32, 8])
@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_stop_changes_nothing(tmp_path: Path, micro_batch_size: int, average: str) -> None:
    with forget_own_parts():
        recipe = guessing_run(tmp_path)
        recipe["machine"]["micro_batch_size"] = micro_batch_size
        recipe["optim"]["average"] = average
        end = stopped_and_resumed(recipe, tmp_path / "runs", (1, 4, 7, 9))
    assert end.experience["inputs"].shape[0] == 64
    assert end.state["stream"]["made_at"] == 8


# Answers are written every third step, each is learned from three times.
@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_answers_that_are_scored(tmp_path: Path, micro_batch_size: int) -> None:
    recipe = rewarded_run(tmp_path, updates=3, passes=3, draws=2, kl_weight=0.1)
    recipe["machine"]["micro_batch_size"] = micro_batch_size
    end = stopped_and_resumed(recipe, tmp_path / "runs", (1, 3, 5, 6))
    assert {"before", "reference", "advantages"} <= end.experience.keys()
    assert end.state["stream"]["cursor"]["prompts"] >= 16


# What the weights were is the adapter's affair, and what they started from another run's.
def test_answers_of_an_adapter(tmp_path: Path) -> None:
    settings = {"updates": 2, "draws": 2, "kl_weight": 0.1}
    with forget_own_parts():
        recipe = adapted_rewarded_run(tmp_path, tmp_path / "runs", **settings)
        end = stopped_and_resumed(recipe, tmp_path / "runs", (1, 3, 4, 6))
    assert all(name.endswith(("lora_A", "lora_B")) for name in end.model)
    assert {"before", "reference", "advantages"} <= end.experience.keys()


def killed_run(folder: Path) -> dict[str, Any]:
    return guessing_run(folder) | {
        "training": {"batch_size": 32, "steps": STEPS},
        "logging": {"every": 1},
        "evaluation": {"every": 10},
        "checkpoints": {"every": 3},
    }


def test_killed_while_training_and_while_saving(tmp_path: Path) -> None:
    recipe = killed_run(tmp_path)
    whole = train_in_child(recipe, tmp_path / "whole", tmp_path / "cache")
    whole.join(120)
    assert whole.exitcode == 0
    runs = tmp_path / "parts"
    kill_while_training(recipe, runs, tmp_path / "cache", 7, delay_s=0.005)
    # The third file of a checkpoint, after the optimizer's, is that of the examples.
    kill_during_save(recipe, runs, tmp_path / "cache", write=6)
    last = train_in_child(recipe, runs, tmp_path / "cache")
    last.join(120)
    assert last.exitcode == 0
    for name in ("model", "optimizer", "experience"):
        one, other = (
            (folder / recipe["name"] / "checkpoints" / f"step-{STEPS:08d}" / f"{name}.safetensors")
            for folder in (tmp_path / "whole", runs)
        )
        assert one.read_bytes() == other.read_bytes(), name
    assert weights_sha256(runs / recipe["name"], STEPS)


def test_examples_that_are_not_there(tmp_path: Path) -> None:
    with forget_own_parts():
        recipe = guessing_run(tmp_path)
        trainer = groundup.trainer(recipe, runs=tmp_path / "runs")
        next(trainer.steps())
        trainer.save()
        saved = trainer.state_dict()
        saved.experience.clear()
        with pytest.raises(CheckpointError, match=r"that step 0 made are not in the checkpoint"):
            trainer.load_state_dict(saved)
        trainer.close()
        # The same run without what makes its examples would pass them over.
        path = tmp_path / "my_guesses.py"
        code = path.read_text(encoding="utf-8")
        begin = code.index("    def open(")
        path.write_text(code[:begin] + code[code.index("class GuessStream") :], encoding="utf-8")
    message = r"holds examples that weights made, but the data makes"
    with forget_own_parts(), pytest.raises(RunError, match=message):
        groundup.trainer(recipe, runs=tmp_path / "runs")
