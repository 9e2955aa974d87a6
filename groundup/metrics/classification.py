"""How good a classifier is, from the probabilities it gives and the true classes.

Legend: N examples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import MissingExtraError

__all__ = ["Judgement", "judge", "wilson_interval"]


@dataclass(frozen=True)
class Judgement:
    """What a classifier reached.

    Attributes:
        metrics: accuracy, balanced_accuracy and f1 (the mean over classes), each 0 to 1; expected_calibration_error.
        per_class: For each class precision, recall, f1, and how many examples it has.
        confusion: (K, K) counts; rows are true classes, columns predicted ones.
    """

    metrics: dict[str, float]
    per_class: list[tuple[float, float, float, int]]
    confusion: NDArray[np.int64]


def judge(probabilities: NDArray[np.float64], true: NDArray[np.int64]) -> Judgement:
    """Judge probabilities (N, K) against true classes (N,).

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    try:
        from sklearn import metrics
    except ImportError:
        raise MissingExtraError("scikit-learn", "classic") from None
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(1)
    parts = metrics.precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0.0)
    confusion = metrics.confusion_matrix(true, predicted, labels=classes)
    present = confusion.sum(1) > 0
    recall = np.asarray(parts[1])
    low, high = wilson_interval(int((predicted == true).sum()), len(true))
    found = {
        "accuracy": float((predicted == true).mean()),
        "accuracy_low_95": low,
        "accuracy_high_95": high,
        "balanced_accuracy": float(recall[present].mean()),
        "f1": float(np.asarray(parts[2])[present].mean()),
        "expected_calibration_error": _calibration_error(probabilities.max(1), predicted == true),
    }
    rows = [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*parts, strict=True)]
    return Judgement(found, rows, confusion.astype(np.int64))


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval in which a share lies that was seen as ``right`` of ``total``, at 95% for z = 1.96.

    Source:
        Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share = right / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the mean distance of confidence from accuracy over bins of confidence, weighted by their examples.

    Source:
        Guo et al., 2017 (arXiv:1706.04599), equation 3.
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.abs(np.bincount(place, confidence, bins) - np.bincount(place, right, bins))
    return float(gaps.sum() / counts.sum())
