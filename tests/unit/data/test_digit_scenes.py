"""Pictures of digits with boxes around their ink, made from the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.core.errors import DataError, RecipeError
from groundup.core.settings import validate
from groundup.data.sources.digit_scenes import DigitScenes

FEW: dict[str, Any] = {"pictures": 12, "held_out": 6, "tested": 0, "noise": 0.0}


def source(**settings: Any) -> DigitScenes:
    return validate(DigitScenes, {**FEW, **settings}, "recipe.data")


def test_boxes_are_tight_around_bright_ink(tmp_path: Path) -> None:
    for example in source(digits=[1, 1]).examples("train", tmp_path):
        (left, top, right, bottom) = example.target.corners[0].astype(int)
        ground = example.inputs.copy()
        ground[top:bottom, left:right] = 0
        inside = example.inputs[top:bottom, left:right]
        assert inside.max() > ground.max()
        assert 12 <= bottom - top <= 28
        assert example.target.areas[0] == (right - left) * (bottom - top)


def test_the_seed_decides(tmp_path: Path) -> None:
    one = source().examples("train", tmp_path)
    again = source().examples("train", tmp_path)
    other = source(seed=1).examples("train", tmp_path)
    assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a.inputs, b.inputs) for a, b in zip(one, other, strict=True))
    counts = {len(example.target.labels) for example in one}
    assert 0 in counts
    assert max(counts) <= 4
    card = source().card(tmp_path)
    assert card["train"]["pictures"] == 12
    assert source().splits() == ("train", "validation")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"digits": [4, 1]}, "smaller one first"),
        ({"digits": [0, 0]}, "nothing to find"),
        ({"digit_size": [2, 9]}, "4 or more"),
        ({"digit_size": [12, 80]}, "has 64 pixels"),
    ],
)
def test_impossible_scenes_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        source(**settings)


def test_a_split_that_was_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Set data\.tested"):
        source().examples("test", tmp_path)
