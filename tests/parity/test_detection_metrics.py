"""mAP is pycocotools', to the ninth digit, with crowds, empty pictures and scores that are equal."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from groundup.metrics.detection import FoundBoxes, TrueBoxes, evaluate_boxes

coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")

CLASSES = 4


def draw(seed: int) -> tuple[list[TrueBoxes], list[FoundBoxes]]:
    """Return boxes of some pictures, and what was found of them: near ones, doubles, wrong ones."""
    random = np.random.default_rng(seed)
    true = []
    found = []
    for _ in range(int(random.integers(2, 9))):
        count = int(random.integers(0, 6))
        corner = random.uniform(0, 120, (count, 2))
        # Whole numbers give overlaps that are exactly at a threshold.
        sides = np.maximum(1, np.round(random.uniform(1, 130, (count, 2)), int(seed % 2)))
        boxes = np.concatenate((corner, corner + sides), 1)
        labels = random.integers(0, CLASSES, count)
        areas = sides.prod(1) * random.uniform(0.4, 1.0, count)
        true.append(TrueBoxes(boxes, labels, random.random(count) < 0.2, areas))
        copies = np.repeat(np.arange(count), random.integers(0, 3, count))
        near = boxes[copies] + random.normal(0, 5, (len(copies), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        others = random.uniform(0, 100, (int(random.integers(0, 5)), 4))
        others[:, 2:] += others[:, :2]
        guessed = np.where(random.random(len(copies)) < 0.8, labels[copies], 0)
        total = len(copies) + len(others)
        scores = np.round(random.random(total), 1 + seed % 5)
        classes = np.concatenate((guessed, random.integers(0, CLASSES, len(others))))
        found.append(FoundBoxes(np.concatenate((near, others)), scores, classes))
    return true, found


def by_pycocotools(true: list[TrueBoxes], found: list[FoundBoxes]) -> Any:
    def sides(box: Any) -> list[float]:
        left, top, right, bottom = map(float, box)
        return [left, top, right - left, bottom - top]

    annotations = [
        {"image_id": number, "category_id": int(k) + 1, "bbox": sides(b), "area": float(a)}
        | {"iscrowd": int(crowd)}
        for number, each in enumerate(true, 1)
        for b, k, crowd, a in zip(*each[:3], each.areas, strict=True)
    ]
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(1, len(true) + 1)],
        "annotations": [each | {"id": n} for n, each in enumerate(annotations, 1)],
        "categories": [{"id": number} for number in range(1, CLASSES + 1)],
    }
    results = [
        {"image_id": number, "category_id": int(k) + 1, "bbox": sides(b), "score": float(s)}
        for number, each in enumerate(found, 1)
        for b, s, k in zip(*each, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_map_is_that_of_pycocotools(seed: int) -> None:
    true, found = draw(seed)
    if not sum(len(each.scores) for each in found):
        pytest.skip("pycocotools takes no empty list of detections")
    wanted = by_pycocotools(true, found)
    scores = evaluate_boxes(true, found, [str(n) for n in range(CLASSES)])
    places = {"map": 0, "map_50": 1, "map_75": 2, "map_small": 3, "map_medium": 4, "map_large": 5}
    places["recall"] = 8
    for name, place in places.items():
        value = float(wanted.stats[place])
        # What pycocotools says -1 of is not there: left out, or 0 where a validation needs it.
        assert scores.metrics.get(name, 0.0) == pytest.approx(max(value, 0.0), abs=1e-9)
    curves = wanted.eval["precision"][0, :, :, 0, 2].T
    known = curves >= 0
    assert (np.isnan(scores.curves) == ~known).all()
    np.testing.assert_allclose(scores.curves[known], curves[known], rtol=0, atol=1e-9)
