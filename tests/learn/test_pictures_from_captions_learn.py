"""A small U-Net trained for less than a minute of CPU makes digits in colours that captions ask for, also those
of a digit and a colour that never came together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_runs import NAMES
from pictures import save

from groundup import api
from groundup.data.sources.arrays import Arrays

pytestmark = pytest.mark.slow
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}


def write_coloured_digits(folder: Path) -> None:
    """Write 1,200 digits in four colours with captions; each digit is held out in one of them."""
    rows: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for number, each in enumerate(Arrays().examples("train", folder)[:1200]):
        digit = int(each.target)
        colour = list(COLOURS)[number % 4]
        split = "validation" if (digit + number) % 4 == 0 else "train"
        pixels = np.asarray(each.inputs)[..., None] / 16 * 255 * np.array(COLOURS[colour])
        (folder / split).mkdir(parents=True, exist_ok=True)
        save(folder / split / f"{number}.png", pixels)
        rows[split].append((f"{number}.png", f"a {colour} {NAMES[digit]}"))
    for split, own in rows.items():
        with (folder / split / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file_name", "text"), *own])


def test_combinations_that_never_came_together(tmp_path: Path) -> None:
    write_coloured_digits(tmp_path / "digits")
    recipe: dict[str, Any] = {
        "name": "coloured-digits",
        "model": {
            "name": "unet",
            "widths": [32, 64],
            "text": {"name": "transformer_classifier", "layers": 1, "width": 32, "heads": 2},
        },
        "task": {
            "name": "generate_images",
            "condition": "text",
            "steps": 20,
            "sampler": "euler",
            "guidance": 2,
        },
        "processor": {
            "name": "captioned_pictures",
            "tokenizer": {"name": "bpe", "vocab_size": 300},
            "pictures": {
                "name": "image",
                "normalise": "given",
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
            },
        },
        "data": {"name": "captioned_images", "path": str(tmp_path / "digits")},
        "optim": {"lr": 2e-3, "warmup_steps": 20, "ema_decay": 0.98},
        "training": {"batch_size": 32, "steps": 400},
        "evaluation": {"every": 400},
        "checkpoints": {"every": 400},
        "machine": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
    }
    run = api.train(recipe, runs=tmp_path)
    found = api.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert found["captions"] == 10
    # What is made is nearer to the real picture of its caption than what was trained on.
    assert found["nearest_accuracy_at_1"] >= 5 * found["chance"]
    assert found["nearest_accuracy_at_1"] > found["baseline_nearest_accuracy_at_1"]
    assert found["copied_pictures"] <= 0.3 * found["shown_pictures"]
