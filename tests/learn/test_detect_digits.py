"""The demonstration of detection, cut short, finds digits that it has never seen, far better than a
copy of the most similar picture's boxes."""

from __future__ import annotations

from pathlib import Path

import pytest

import groundup
from groundup import api

RECIPE = Path(__file__).parents[2] / "recipes" / "demo" / "detect.yaml"


@pytest.mark.slow
def test_digits_are_found(tmp_path: Path) -> None:
    changes = {"training.epochs": 8, "data.pictures": 600, "machine.threads": 1}
    run = api.train(RECIPE, changes, runs=tmp_path)
    found = groundup.load(run.folder).evaluate().metrics
    assert found["map"] >= 0.15
    assert found["map"] >= 10 * max(found["nearest_picture_map"], found["mean_box_map"])
