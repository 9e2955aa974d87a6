"""mAP of cases that can be told by hand; all others are compared with pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.detection import FoundBoxes, TrueBoxes, evaluate_boxes

BOX = [10.0, 10.0, 30.0, 30.0]
OTHER = [50.0, 50.0, 60.0, 60.0]


def there(
    boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None
) -> TrueBoxes:
    corners = np.array(boxes).reshape(-1, 4)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    flags = np.array(crowd or [False] * len(labels), np.bool_)
    return TrueBoxes(corners, np.array(labels, np.int64), flags, areas)


def here(boxes: list[list[float]], scores: list[float], labels: list[int]) -> FoundBoxes:
    return FoundBoxes(np.array(boxes).reshape(-1, 4), np.array(scores), np.array(labels, np.int64))


def test_everything_right_and_nothing_found() -> None:
    true = [there([BOX, OTHER], [0, 1]), there([], [])]
    right = evaluate_boxes(true, [here([BOX, OTHER], [0.9, 0.8], [0, 1]), here([], [], [])], "ab")
    for name in ("map", "map_50", "recall", "map_small"):
        assert right.metrics[name] == pytest.approx(1.0)
    assert "map_large" not in right.metrics
    assert right.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    nothing = evaluate_boxes(true, [here([], [], [])] * 2, "ab")
    assert nothing.metrics["map"] == 0.0
    assert nothing.confusion.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert nothing.per_class == [(0.0, 0.0, 0.0, 1), (0.0, 0.0, 0.0, 1)]


def test_half_of_the_overlaps_are_reached() -> None:
    # 20 x 20 against 20 x 26: an overlap of 0.769, above six of the ten thresholds.
    scores = evaluate_boxes([there([BOX], [0])], [here([[10, 10, 30, 36]], [0.5], [0])], "a")
    assert scores.metrics["map"] == pytest.approx(0.6)
    assert scores.metrics["map_75"] == pytest.approx(1.0)


def test_what_is_in_a_crowd_is_neither_right_nor_wrong() -> None:
    true = [there([BOX, OTHER], [0, 0], [True, False])]
    found = [here([[12, 12, 20, 20], [14, 14, 28, 28], OTHER], [0.9, 0.8, 0.7], [0, 0, 0])]
    scores = evaluate_boxes(true, found, "a")
    assert scores.metrics["map"] == pytest.approx(1.0)
    assert scores.per_class[0][3] == 1


def test_a_split_without_boxes() -> None:
    scores = evaluate_boxes([there([], [])], [here([BOX], [0.9], [0])], "a")
    assert scores.metrics == {"map": 0.0, "map_50": 0.0, "map_75": 0.0, "recall": 0.0}
    assert np.isnan(scores.curves).all()
    assert scores.per_class == [(None, None, None, 0)]
