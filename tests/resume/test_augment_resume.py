"""A run with all augmentation on, stopped and resumed, ends with the weights of the run that was
never stopped."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import PHOTOGRAPHS, digit_folders, save

from groundup import api
from groundup.core.values import Batch
from groundup.media.images import read_picture
from groundup.training.trainer import Trainer

STEPS = 8
AUGMENTATION: dict[str, Any] = {
    **{
        "rotate_degrees": 20.0,
        "scale": [0.8, 1.2],
        "shift": 0.1,
        "crop": 0.1,
        "flip": True,
        "vertical_flip": True,
    },
    **{
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "hue": 0.1,
        "randaugment": 2,
        "erase": 0.5,
    },
    **{"noise": 0.1, "mixup": 0.4, "cutmix": 1.0},
}


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    root = digit_folders(tmp_path / "root", 50, "38")
    photograph = read_picture(PHOTOGRAPHS / "china.jpg", "china")
    for number in range(30):  # pieces of a photograph as a third class
        save(
            root / "china" / f"{number}.png",
            photograph[number * 10 : number * 10 + 30, number * 15 : number * 15 + 30],
        )
    return {
        **{
            "name": "augmented",
            "model": {"name": "cnn", "channels": [4], "hidden": [16], "dropout": 0.2},
        },
        "task": {"name": "classify", "augmentation": AUGMENTATION},
        "processor": {"name": "image", "size": [12, 12], "channels": 3, "normalise": "standard"},
        "data": {
            "name": "images",
            "path": str(root),
            "fraction": 0.2,
            "in_memory": False,
        },
        **{"optim": {"lr": 1e-2}, "training": {"batch_size": 16, "steps": STEPS}},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": 1,
            "micro_batch_size": 16,
        },
    }


def weights(trainer: Trainer) -> list[torch.Tensor]:
    trainer.close()
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_stopped_and_resumed_is_the_same_run(
    recipe: dict[str, Any], tmp_path: Path, stop: int
) -> None:
    whole = api.trainer(recipe, {"name": "whole"}, runs=tmp_path)
    losses = [report.loss for report in whole.steps()]
    first = api.trainer(recipe, runs=tmp_path)
    begun = [report.loss for report in islice(first.steps(), stop)]
    first.save()
    first.close()
    second = api.trainer(recipe, runs=tmp_path)
    assert second.step == stop
    assert begun + [report.loss for report in second.steps()] == losses
    assert all(
        torch.equal(one, other) for one, other in zip(weights(whole), weights(second), strict=True)
    )


def taken(recipe: dict[str, Any], runs: Path, samples: int, **machine: Any) -> Batch:
    changes = {f"machine.{name}": value for name, value in machine.items()}
    name = "-".join(map(str, machine.values()))
    trainer = api.trainer(recipe, {"name": f"m{name}", **changes}, runs=runs)
    batches = [next(trainer.stream) for _ in range(samples // machine["micro_batch_size"])]
    trainer.close()
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.slow
def test_the_micro_batch_and_workers_change_not_one_bit(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    whole = taken(recipe, tmp_path, 96, micro_batch_size=16, workers=0)
    assert set(whole) == {"inputs", "labels", "labels_2", "mix", "guess", "commonest"}
    for micro_batch_size, workers in ((4, 0), (8, 2)):
        other = taken(recipe, tmp_path, 96, micro_batch_size=micro_batch_size, workers=workers)
        for key, values in whole.items():
            assert torch.equal(values, other[key]), key


@pytest.mark.slow
def test_validation_is_not_augmented(recipe: dict[str, Any], tmp_path: Path) -> None:
    plain = {**recipe, "task": "classify"}
    found = []
    for name, each in (("a", recipe), ("b", plain)):
        trainer = api.trainer(each, {"name": name, "training.steps": 1}, runs=tmp_path)
        found.append(trainer.evaluate(None)["loss"])
        trainer.close()
    assert found[0] == found[1]
