"""Evaluating one run: its evaluation.json, made once for the same weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.contracts.tasks import Chats
from groundup.inference.predictor import Predictor
from groundup.reports.overfitting import diagnose
from groundup.reports.run_reader import read_run
from groundup.runs.run import Run
from groundup.weights.model_folder import write_model_card

__all__ = ["evaluate_run", "next_command"]

_TEXT = "'Once'"
_INPUTS = {"image": "picture.png", "audio": "sound.wav", "table": """'{"column": "value"}'"""}


def evaluate_run(
    folder: Path, checkpoint: str, limit: int, *, again: bool, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Evaluate a run on its held-out data, write evaluation.json, and return its name, folder and
    what was found.

    Args:
        folder: The run's.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        limit: Evaluate at most N examples where each costs a generation.
        again: Evaluate even where evaluation.json is of these weights already.
        progress: Called with a line about what is being done.
    """
    run = Run.open(folder)
    step = run.pick(checkpoint)
    stored = run.read_json("evaluation.json")
    # The same step and limit give the same numbers, and with generations they take long.
    if stored is None or stored["step"] != step or stored["limit"] != limit or again:
        begin = time.perf_counter()
        found = Predictor.load(folder, checkpoint).evaluate(limit, progress)
        seconds = time.perf_counter() - begin
        stored = {
            "step": step,
            "limit": limit,
            **dataclasses.asdict(found),
            "evaluation_s": seconds,
        }
        # The diagnosis needs the evaluation that is about to be stored, and is stored with it.
        diagnosis = diagnose(dataclasses.replace(read_run(folder), evaluation=stored))
        stored["diagnosis"] = None
        if diagnosis is not None:
            stored["diagnosis"] = dataclasses.asdict(diagnosis)
        run.write_json("evaluation.json", stored)
        # The card was written when training ended, and could not have these results then.
        write_model_card(run)
    else:
        progress(f"{folder}: evaluated already at step {step}; re-used")
    # Of the training up to this checkpoint, not of the evaluation.
    seconds = run.checkpoints.state(step)["elapsed_s"]
    return {
        "name": run.recipe.name,
        "folder": str(folder),
        "seconds": seconds,
        "evaluation": stored,
    }


def next_command(run: Run) -> str:
    """Return the command that a user is likely to type next: to talk to a run, or to let it
    predict."""
    if isinstance(run.recipe.task, Chats):
        return f"groundup chat {run.folder}"
    reads = run.recipe.processor.registered_name
    if reads == "frames":  # which no file holds alone
        return f"groundup runs compare {run.folder} another_run"
    return f"groundup predict {run.folder} {_INPUTS.get(reads, _TEXT)}"
