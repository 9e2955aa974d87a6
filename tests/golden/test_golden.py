"""Twenty steps of training give the losses they always gave. A change that is meant to change them
rewrites the files:

GROUNDUP_REWRITE_GOLDEN=1 python -m pytest tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from groundup import api

FOLDER = Path(__file__).parent
REWRITE = os.environ.get("GROUNDUP_REWRITE_GOLDEN") == "1"
STEPS = 20
CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw_accumulated": {"machine.micro_batch_size": 1},
    "sgd_nesterov": {
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.nesterov": True,
        "optim.lr": 0.1,
    },
    "muon": {"optim.name": "muon", "optim.schedule": "wsd"},
}


def losses(recipe: dict[str, Any], changes: dict[str, Any], runs: Path) -> list[float]:
    trainer = api.trainer(
        recipe, {"training.steps": STEPS, "model.dropout": 0.0, **changes}, runs=runs
    )
    found = [report.loss for report in trainer.steps()]
    trainer.close()
    return found


def compare(name: str, found: list[float], tolerance: float = 1e-5) -> None:
    path = FOLDER / f"{name}.json"
    if REWRITE:
        path.write_text(
            json.dumps({"losses": [round(loss, 8) for loss in found]}, indent=1) + "\n",
            encoding="utf-8",
        )
    expected = json.loads(path.read_text(encoding="utf-8"))["losses"]
    assert len(found) == STEPS
    assert found[-1] < found[0]
    assert found == pytest.approx(expected, rel=tolerance)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A text that is the same whatever the version of Python."""
    path = tmp_path / "texts.jsonl"
    nouns = ("river", "stone", "lamp", "garden", "letter", "engine", "winter")
    texts = [
        f"The {nouns[i % 7]} of {nouns[i * i % 7]} number {i * 37 % 101}. " * (3 + i % 5)
        for i in range(60)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_pretraining(recipe: dict[str, Any], tmp_path: Path, name: str) -> None:
    tolerance = (
        2e-3 if name == "muon" else 1e-5
    )  # Muon multiplies in bf16, which processors round differently
    compare(name, losses(recipe, CASES[name], tmp_path / "runs"), tolerance)


def test_accumulating_gives_the_same_losses() -> None:
    whole, parts = (
        json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        for name in ("adamw", "adamw_accumulated")
    )
    assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-5)


@pytest.mark.slow
def test_fine_tuning_on_conversations(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe["model"]["context_length"] = 64
    base = api.train(recipe, {"model.dropout": 0.0}, runs=tmp_path / "runs")
    chats = tmp_path / "chats.jsonl"
    lines = [
        json.dumps({"prompt": f"What is {i}?", "completion": f"It is {i * 7 % 13}."})
        for i in range(50)
    ]
    chats.write_text("\n".join(lines), encoding="utf-8")
    tuned = {
        "name": "chat",
        "init": {"run": str(base.folder)},
        "task": "chat",
        "data": {"name": "conversations", "path": str(chats), "fraction": 0.1},
        "optim": {"lr": 3e-3, "schedule": "linear"},
        "training": {"batch_size": 4},
        "machine": recipe["machine"],
    }
    compare("chat", losses(tuned, {}, tmp_path / "runs"))
