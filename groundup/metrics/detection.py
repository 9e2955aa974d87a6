"""How good found boxes are, by the rules of COCO; the one place where hotcoco is imported.

Legend: K true boxes, N found ones, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import MissingExtraError

__all__ = ["DetectionScores", "FoundBoxes", "TrueBoxes", "evaluate_boxes", "require_hotcoco"]

Floats = NDArray[np.float64]
# What a detection is compared with: the rules of COCO take a hundred of a picture.
MOST = 100
_HALF = 0.5
# The place of 0.75 among the overlaps 0.5, 0.55, ... 0.95.
_THREE_QUARTERS = 5


class TrueBoxes(NamedTuple):
    """What is in a picture: corners (K, 4), class numbers (K,), regions of many things (K,), and
    the areas (K,) by which sizes are told apart."""

    corners: NDArray[Any]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[Any]


class FoundBoxes(NamedTuple):
    """What was found in a picture: corners (N, 4), probabilities (N,) and class numbers (N,)."""

    corners: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class DetectionScores:
    """How good found boxes are.

    Attributes:
        metrics: ``map`` is the mean over overlaps of 0.5 to 0.95 and over classes of the average
            precision, ``map_50`` and ``map_75`` are those of one overlap, ``map_small``,
            ``map_medium`` and ``map_large`` those of boxes below 32², up to 96² and above, where
            there are any; ``recall`` is the share of true boxes found, likewise averaged.
        per_class: Of each class ``map``, ``map_50`` and ``recall``, None without true boxes; and
            how many true boxes there are.
        curves: (C, 101) precision at recalls of 0 to 1, at an overlap of 0.5; NaN without boxes.
        confusion: (C + 1, C + 1) true boxes by row, and what they were found as; the last row is
            what was found where nothing is, the last column what was not found. At an overlap of
            0.5, of what is at least ``threshold`` probable.
    """

    metrics: dict[str, float]
    per_class: list[tuple[float | None, float | None, float | None, int]]
    curves: Floats
    confusion: NDArray[np.int64]


def require_hotcoco() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import hotcoco

        return hotcoco
    except ImportError:
        raise MissingExtraError("hotcoco", "detect") from None


def evaluate_boxes(
    true: Sequence[TrueBoxes],
    found: Sequence[FoundBoxes],
    labels: Sequence[str],
    threshold: float = _HALF,
) -> DetectionScores:
    """Return how good the boxes found in pictures are.

    Args:
        true: Of each picture.
        found: Of the same pictures; all that is at all probable, not what a user is shown.
        labels: The names of the C classes.
        threshold: Probability of what counts in the confusion matrix.
    """
    library = require_hotcoco()
    truth = library.COCO(_as_coco(true, labels))
    # Without any detection the rules have nothing to sort: one that cannot be right stands in.
    rows = _as_results(found) or [_nothing()]
    evaluation = library.COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.evaluate()
    # Its own summary is printed; the means are taken here.
    evaluation.accumulate()
    # (overlaps, recalls, classes, sizes, limits) and (overlaps, classes, sizes, limits).
    precision = np.asarray(evaluation.eval["precision"], np.float64)[..., -1]
    recall = np.asarray(evaluation.eval["recall"], np.float64)[..., -1]
    metrics = {
        "map": _mean(precision[..., 0]) or 0.0,
        "map_50": _mean(precision[0, :, :, 0]) or 0.0,
        "map_75": _mean(precision[_THREE_QUARTERS, :, :, 0]) or 0.0,
        "recall": _mean(recall[..., 0]) or 0.0,
    }
    for size, name in enumerate(("small", "medium", "large"), 1):
        value = _mean(precision[..., size])
        if value is not None:
            metrics[f"map_{name}"] = value
    # Crowds are no things: they count for no class.
    counts = np.zeros(len(labels), np.int64)
    for picture in true:
        counts += np.bincount(picture.labels[~picture.crowd], minlength=len(labels))
    per_class = [
        (
            _mean(precision[:, :, number, 0]),
            _mean(precision[0, :, number, 0]),
            _mean(recall[:, number, 0]),
            int(counts[number]),
        )
        for number in range(len(labels))
    ]
    # At the overlap of 0.5, which is what a curve is usually shown of.
    curves = precision[0, :, :, 0].T.copy()
    curves[curves < 0] = np.nan
    confusion = evaluation.confusion_matrix(iou_thr=_HALF, max_det=MOST, min_score=threshold)
    return DetectionScores(
        metrics, per_class, curves, np.asarray(confusion["matrix"]).astype(np.int64)
    )


def _mean(values: Floats) -> float | None:
    # -1 says that there are no such boxes.
    known = values[values >= 0]
    return float(known.mean()) if known.size else None


def _as_coco(true: Sequence[TrueBoxes], labels: Sequence[str]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(true, 1):
        rows = zip(
            _sides(picture.corners),
            picture.labels.tolist(),
            picture.crowd.tolist(),
            np.asarray(picture.areas, np.float64).tolist(),
            strict=True,
        )
        for box, label, crowd, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    return {
        # Their sizes are of no account for boxes.
        "images": [{"id": n, "width": 1, "height": 1} for n in range(1, len(true) + 1)],
        "annotations": annotations,
        "categories": [{"id": n, "name": label} for n, label in enumerate(labels, 1)],
    }


def _as_results(found: Sequence[FoundBoxes]) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": label + 1, "bbox": box, "score": score}
        for number, picture in enumerate(found, 1)
        for box, score, label in zip(
            _sides(picture.corners),
            np.asarray(picture.scores, np.float64).tolist(),
            picture.labels.tolist(),
            strict=True,
        )
    ]


def _nothing() -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [-2.0, -2.0, 1.0, 1.0], "score": 0.0}


def _sides(corners: NDArray[Any]) -> list[list[float]]:
    """Return left, top, width and height."""
    wide = np.asarray(corners, np.float64).reshape(-1, 4)
    sides = np.concatenate((wide[:, :2], wide[:, 2:] - wide[:, :2]), 1)
    found: list[list[float]] = sides.tolist()
    return found
