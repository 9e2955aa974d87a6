"""Sounds at another speed, in noise and with stretches blanked: all a function of the sample alone,
so that a run goes on as if it had never stopped."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from resuming import stopped_and_resumed

import groundup

AUGMENTATION: dict[str, Any] = {
    "speed": 0.1,
    "gain_db": 6.0,
    "noise_snr_db": [5.0, 20.0],
    "time_masks": 2,
    "frequency_masks": 1,
}


def recipe(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "dialled",
        "model": {"name": "ctc", "blocks": "conformer", "layers": 1, "width": 16, "heads": 2},
        "task": {"name": "transcribe", "augmentation": AUGMENTATION, "measured": 4},
        "processor": {"name": "speech", "sample_rate": 8000, "mel_bands": 20},
        "data": {"name": "dialled_numbers", "numbers": 30, "held_out": 6, "lengths": [2, 4]},
        "optim": {"lr": 3e-3, "warmup_steps": 2, "clip_norm": 1.0},
        "training": {"batch_size": 8, "steps": 8},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": 1,
            "micro_batch_size": 4,
        },
    }
    for name, own in changes.items():
        found[name] = {**found[name], **own}
    return found


@pytest.mark.slow
def test_a_resumed_run_is_the_one_that_was_never_stopped(tmp_path: Path) -> None:
    stopped_and_resumed(recipe(), tmp_path, (3, 8))


@pytest.mark.slow
def test_a_sound_is_changed_alike_in_any_micro_batch(tmp_path: Path) -> None:
    losses = {}
    for size in (1, 4, 8):
        changed = recipe(machine={"micro_batch_size": size}, model={"dropout": 0.0})
        trainer = groundup.trainer(changed, runs=tmp_path / str(size))
        losses[size] = [report.loss for report in islice(trainer.steps(), 3)]
        trainer.close()
    assert losses[1] == pytest.approx(losses[8], rel=1e-4)
    assert losses[4] == pytest.approx(losses[8], rel=1e-4)


@pytest.mark.slow
def test_held_out_sounds_are_as_they_are(tmp_path: Path) -> None:
    plain = recipe(task={"augmentation": {}}, model={"dropout": 0.0})
    found = []
    for number, each in enumerate((plain, recipe(model={"dropout": 0.0}))):
        trainer = groundup.trainer(each, runs=tmp_path / str(number))
        found.append(trainer.evaluate())
        trainer.close()
    assert found[0] == found[1]
