"""Evaluating one run: its evaluation.json, made once for the same weights."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.contracts.games import PlaysGames
from groundup.contracts.tasks import Chats, DrawsPictures
from groundup.core.errors import RunError
from groundup.inference.predictor import Predictor
from groundup.inference.pretrained_run import open_run
from groundup.inference.remedies import remedies_after_training
from groundup.reports.diagnose import diagnose
from groundup.reports.run_reader import read_run
from groundup.runs.data_fingerprint import changes_since
from groundup.runs.run import Run
from groundup.weights.model_folder import write_model_card

__all__ = ["evaluate_on", "evaluate_run", "next_command"]

_log = logging.getLogger("groundup")
_TEXT = "'Once'"
_INPUTS = {
    "image": "picture.png",
    "audio": "sound.wav",
    "speech": "sound.wav",
    "interactions": "--user USER",
    "table": """'{"column": "value"}'""",
    "picture_tokens": "'a red hat' --out drawn.png",
    "captioned_pictures": "'a red hat' --out made.png",
}


def evaluate_run(
    folder: Path,
    checkpoint: str,
    limit: int | None,
    *,
    again: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Evaluate a run on its held-out data, write evaluation.json, and return its name, folder and
    what was found.

    Args:
        folder: The run's.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        limit: Evaluate at most N examples; None: all, but at most 100 where each costs a
            generation.
        again: Evaluate even where evaluation.json is of these weights already.
        progress: Called with a line about what is being done.
    """
    _refuse_none(limit)
    run = open_run(folder)
    if run.is_pretrained:
        raise RunError(
            run.label,
            "is pretrained weights, which have no held-out data of their own",
            "Give data with labels: --data FILE",
        )
    step = run.pick(checkpoint)
    if changes := changes_since(run, run.recipe.data):
        _log.warning(
            "%s: the data has changed since training, so that held-out rows may have been trained"
            " on: %s",
            folder,
            "; ".join(changes[:3]),
        )
    stored = run.read_json("evaluation.json")
    # The same step and limit give the same numbers, and with generations they take long.
    asked = {
        "step": step,
        "limit": limit,
        "baselines": list(run.recipe.evaluation.baselines),
    }
    # Evaluations of before there were baselines have none.
    known = {"baselines": [], **(stored or {})}
    if stored is None or not asked.items() <= known.items() or again:
        begin = time.perf_counter()
        found = Predictor.load(folder, checkpoint).evaluate(limit, progress)
        seconds = time.perf_counter() - begin
        stored = {
            **asked,
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


def evaluate_on(
    folder: Path,
    data: str,
    checkpoint: str,
    limit: int | None,
    progress: Callable[[str], None],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate a run on other data than its own, and return what ``evaluate_run`` does, with where
    it was written: ``evaluations/NAME.json`` in the run's folder.

    Args:
        folder: The run's.
        data: A file or folder, read as the run's own data were.
        checkpoint: ``"best"``, ``"last"`` or a step number.
        limit: As of ``evaluate_run``.
        progress: Called with a line about what is being done.
        settings: As of ``Predictor.source_of``.
    """
    _refuse_none(limit)
    predictor = Predictor.load(folder, checkpoint)
    run = predictor.run
    begin = time.perf_counter()
    with remedies_after_training():
        found = predictor.evaluate(limit, progress, data, settings)
    seconds = time.perf_counter() - begin
    stored = {"data": data, "step": predictor.step, "limit": limit, **dataclasses.asdict(found)}
    stored["evaluation_s"] = seconds
    name = f"evaluations/{Path(data).resolve().stem}.json"
    (run.folder / "evaluations").mkdir(exist_ok=True)
    run.write_json(name, stored)
    return {
        "name": f"{run.recipe.name} on {data}",
        "folder": str(folder),
        "seconds": seconds,
        "evaluation": stored,
        "file": str(run.folder / name),
    }


def _refuse_none(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise RunError("limit", f"got {limit}; allowed: 1 or more", "Leave it out for all")


def next_command(run: Run) -> str:
    """Return the command that a user is likely to type next: to talk to a run, or to let it
    predict."""
    if isinstance(run.recipe.task, Chats):
        return f"groundup chat {run.folder}"
    reads = run.recipe.processor.registered_name
    if isinstance(run.recipe.task, PlaysGames):
        return f"groundup play {run.folder}"
    if isinstance(run.recipe.task, DrawsPictures) and reads == "image":
        return f"groundup predict {run.folder} CLASS --out made.png"
    if reads == "frames":  # which no file holds alone
        return f"groundup runs compare {run.folder} another_run"
    return f"groundup predict {run.folder} {_INPUTS.get(reads, _TEXT)}"
