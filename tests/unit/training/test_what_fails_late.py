"""What may fail after a step does not cost it: its checkpoint is written first."""

from __future__ import annotations

import json
import os
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import groundup
from groundup.core.errors import Interrupted, TrainingError
from groundup.runs.run import Run
from groundup.tasks.language_modeling import LanguageModeling

pytestmark = pytest.mark.slow


def short(recipe: dict[str, Any], save: int = 1, **samples: Any) -> dict[str, Any]:
    recipe["training"] = {"batch_size": 4, "steps": 3}
    recipe["logging"] = {"every": 1}
    recipe["evaluation"] = {"every": 3}
    recipe["checkpoints"] = {"every": save}
    recipe["samples"] = samples
    return recipe


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_sample_that_fails_costs_nothing_and_is_reported(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def predict(self: Any, model: Any, *arguments: Any, **options: Any) -> str:
        found.extend(Run.open(tmp_path / "small").checkpoints.steps()[-1:])
        model.eval()
        raise ValueError("no such prompt")

    monkeypatch.setattr(LanguageModeling, "predict", predict)
    run = groundup.train(short(recipe, every=1, prompts=["a"]), runs=tmp_path)
    assert found == [1, 2, 3]  # the checkpoint of a step exists before its samples are taken
    assert run.finished
    events = [row["message"] for row in rows_of(run.folder) if row["kind"] == "event"]
    said = "no samples at step 2, training goes on: predict of task language_modeling failed"
    assert any(f"{said}: ValueError: no such prompt" in message for message in events)


def test_a_validation_that_fails_does_not_cost_the_step(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summarise = LanguageModeling.summarise
    calls = count()

    def fail_later(self: LanguageModeling, sums: Any) -> Any:
        # the first is before the first step, where a failure costs nothing and leaves no folder
        return summarise(self, sums) if next(calls) == 0 else 1 / 0

    monkeypatch.setattr(LanguageModeling, "summarise", fail_later)
    with pytest.raises(ZeroDivisionError):
        groundup.train(short(recipe, save=3), runs=tmp_path)
    assert Run.open(tmp_path / "small").checkpoints.newest_intact() == 3


def test_what_watches_a_run_ends_it_after_its_checkpoint(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    trainer = groundup.trainer(short(recipe), runs=tmp_path)

    def end(row: dict[str, Any]) -> None:
        raise TrainingError("watch", "has seen enough")

    trainer.watch = end
    with pytest.raises(TrainingError, match="has seen enough"):
        trainer.fit()
    trainer.close()
    assert trainer.run.pick("last") == 1


def test_a_signal_between_saving_and_logging_stops_after_the_next_step(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Run.log

    def interrupt_once(self: Run, row: dict[str, Any]) -> None:
        log(self, row)
        if row["kind"] == "train" and row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "log", interrupt_once)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 2 of 3; everything is"):
        groundup.train(short(recipe, save=100), runs=tmp_path)
    assert Run.open(tmp_path / "small").checkpoints.newest_intact() == 2
