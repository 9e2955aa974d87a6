"""How a step's samples are split into micro-batches changes neither its loss nor its gradient."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run, without_chance, write_several_targets

from groundup import api
from groundup.core.values import Report

STEPS = 5


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Documents of very different lengths, so that rows hold from one piece to many."""
    drawn = random.Random(3)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "a", "of"]
    path = tmp_path / "documents.jsonl"
    texts = [
        " ".join(drawn.choices(words, k=drawn.choice((1, 2, 5, 9, 30)))) + f" {i}"
        for i in range(150)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """Conversations whose answers have from one to sixty characters: the counts of micro-batches
    differ widely."""
    drawn = random.Random(4)
    path = tmp_path / "conversations.jsonl"
    lines = []
    for number in range(80):
        answer = "".join(drawn.choices("abcdef ", k=drawn.choice((1, 3, 10, 60)))).strip() or "a"
        lines.append(
            json.dumps({"prompt": f"Question {number}?", "completion": f"{answer}{number}"})
        )
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def reports(
    recipe: dict[str, Any], folder: Path, micro_batch_size: int, precision: str
) -> list[Report]:
    changes = {
        "name": f"m{micro_batch_size}",
        "machine.micro_batch_size": micro_batch_size,
        "machine.precision": precision,
        "model.dropout": 0.0,
        "training.batch_size": 8,
        "training.steps": STEPS,
    }
    trainer = api.trainer(recipe, changes, runs=folder)
    found = list(trainer.steps())
    trainer.close()
    return found


def assert_equal_for_every_split(recipe: dict[str, Any], folder: Path, precision: str) -> None:
    tolerance = 1e-12 if precision == "fp64" else 1e-6
    whole = reports(recipe, folder, 8, precision)
    assert len(whole) == STEPS
    assert len({report.loss for report in whole}) == STEPS
    for micro_batch_size in (1, 2, 4):
        for one, other in zip(
            whole, reports(recipe, folder, micro_batch_size, precision), strict=True
        ):
            assert other.count == one.count
            assert other.samples_seen == one.samples_seen
            assert other.loss == pytest.approx(one.loss, rel=tolerance)
            assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("pack", [True, False])
def test_documents_of_different_lengths(
    recipe: dict[str, Any], documents: Path, tmp_path: Path, precision: str, pack: bool
) -> None:
    recipe["data"] = {
        "name": "text",
        "path": str(documents),
        "fraction": 0.2,
        "packing": {"pack": pack},
    }
    assert_equal_for_every_split(recipe, tmp_path / "runs", precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("pack", [True, False])
def test_answers_of_different_lengths(
    recipe: dict[str, Any], conversations: Path, tmp_path: Path, precision: str, pack: bool
) -> None:
    recipe["task"] = "chat"
    recipe["model"]["context_length"] = 128
    recipe["data"] = {
        "name": "conversations",
        "path": str(conversations),
        "packing": {"pack": pack},
    }
    assert_equal_for_every_split(recipe, tmp_path / "runs", precision)


def test_counts_differ_between_micro_batches(
    recipe: dict[str, Any], conversations: Path, tmp_path: Path
) -> None:
    """Otherwise the tests above could not tell a mean of means from a mean."""
    recipe["task"] = "chat"
    recipe["model"]["context_length"] = 128
    recipe["data"] = {
        "name": "conversations",
        "path": str(conversations),
        "packing": {"pack": False},
    }
    changes = {"machine.micro_batch_size": 1, "training.batch_size": 8}
    trainer = api.trainer(recipe, changes, runs=tmp_path)
    counts = {int((next(trainer.stream)["targets"] >= 0).sum()) for _ in range(8)}
    trainer.close()
    assert len(counts) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "weighting", ["fixed", pytest.param("uncertainty", marks=pytest.mark.slow)]
)
def test_classes_that_weigh_differently_beside_other_tasks(tmp_path: Path, weighting: str) -> None:
    """A micro-batch's weights add up to something else in each, even to less than 1."""
    balanced = {"name": "classify", "class_weights": "balanced"}
    tasks = {"digit": balanced, "ink": "regression", "loop": {**balanced, "label_smoothing": 0.1}}
    recipe = tiny_run("mlp", tmp_path) | {"data": write_several_targets(tmp_path, rare=True)}
    recipe["task"] = {"name": "multitask", "tasks": tasks, "weighting": weighting}
    found = []
    for micro_batch_size in (32, 8, 1):
        changes = {
            "name": f"m{micro_batch_size}",
            "machine.micro_batch_size": micro_batch_size,
            "training.batch_size": 32,
        }
        trainer = api.trainer(
            without_chance(recipe), {**changes, "training.steps": STEPS}, runs=tmp_path / "runs"
        )
        steps = [
            (*(each.losses[task] for task in tasks), each.gradient_norm) for each in trainer.steps()
        ]
        found.append(
            (steps, {name: value.clone() for name, value in trainer.model.state_dict().items()})
        )
        trainer.close()
    whole, *split = found
    for steps, weights in split:
        for one, other in zip(whole[0], steps, strict=True):
            assert other == pytest.approx(one, rel=1e-6)
        for name, value in whole[1].items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mixtures_of_classes_that_weigh_differently(tmp_path: Path) -> None:
    task = {
        "name": "classify",
        "class_weights": "balanced",
        "augmentation": {"mixup": 0.4, "cutmix": 1.0},
    }
    recipe = without_chance(tiny_run("cnn", tmp_path, {"batch_norm": False})) | {"task": task}
    found = []
    for micro_batch_size in (32, 8):
        changes = {
            "name": f"m{micro_batch_size}",
            "machine.micro_batch_size": micro_batch_size,
            "training.batch_size": 32,
        }
        trainer = api.trainer(recipe, {**changes, "training.steps": STEPS}, runs=tmp_path / "runs")
        found.append([(report.loss, report.gradient_norm) for report in trainer.steps()])
        trainer.close()
    for one, other in zip(*found, strict=True):
        assert other == pytest.approx(one, rel=1e-6)
