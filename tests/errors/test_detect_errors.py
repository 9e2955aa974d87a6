"""What is said of recipes that cannot find things."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_run

from groundup import api
from groundup.core.errors import MissingExtraError, RecipeError
from groundup.metrics.detection import require_hotcoco


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"name": "resnet", "layers": [1], "width": 4}}, "finds nothing in pictures"),
        ({"task": {"name": "detect", "set_loss": {"alpha": 0.5}}}, "set_loss: has no effect"),
        (
            {"task": {"name": "detect", "augmentation": {"hue": 0.1}}},
            "needs three channels, but the pictures have 1",
        ),
        ({"processor": "bytes"}, "makes no pictures"),
    ],
)
def test_recipes(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    recipe = tiny_run("detector", tmp_path) | changes
    with pytest.raises(RecipeError, match=words):
        api.trainer(recipe, runs=tmp_path / "runs")


def test_classes_that_only_held_out_pictures_have(tmp_path: Path) -> None:
    recipe = tiny_run("detector", tmp_path)
    recipe["data"] |= {"pictures": 2, "held_out": 30}
    trainer = api.trainer(recipe, runs=tmp_path / "runs")
    with pytest.raises(Exception, match="is none of the training split's"):
        trainer.evaluate()


def test_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(MissingExtraError, match=r"groundup\[detect\]"):
        require_hotcoco()
