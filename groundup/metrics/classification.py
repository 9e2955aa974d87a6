"""How good a classifier is, from the probabilities it gives and the true classes.

Legend: N examples, K classes or labels, R resamples, C cells of the confusion matrix that are not
    0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding
from groundup.metrics.bootstrap import bootstrap_weights
from groundup.metrics.calibration import Reliability, reliability
from groundup.metrics.scikit_learn import scikit_learn

__all__ = [
    "ClassificationScores",
    "evaluate_classes",
    "evaluate_labels",
    "has_label",
    "resamples",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
_THRESHOLD = 0.5
# 1,000 resamples, a hundred at a time: their counts of a thousand classes stay under 1 GB.
_CHUNKS = 10
_AT_ONCE = 100
_TOP = 5


@dataclass(frozen=True)
class ClassificationScores:
    """What a classifier reached.

    Attributes:
        metrics: Numbers by name. Shares are 0 to 1; ``_low_95`` and ``_high_95`` bound a measure at
            95%.
        per_class: For each class precision, recall, F1 and how many examples it has; for each of
            several labels average precision, area under the ROC curve, F1 and how many examples
            have it; None where undefined.
        reliability: Confidence next to how often it was right.
        confusion: (K, K) counts; rows are true classes, columns predicted ones. Empty for several
            labels.
    """

    metrics: dict[str, float]
    per_class: list[tuple[float | None, float | None, float, int]]
    reliability: Reliability
    confusion: Whole


# ---------------------------------------------------------------------------------------- one class
def evaluate_classes(probabilities: Floats, true: Whole, seed: int = 0) -> ClassificationScores:
    """Score probabilities (N, K) against true classes (N,).

    ``accuracy`` has Wilson's interval, and another by bootstrap; ``balanced_accuracy`` is the mean
    recall of the classes that occur, ``macro_f1`` the mean F1 of those that occur or are predicted,
    ``auroc`` the mean over the classes that occur of the area under the ROC curve of each against
    the rest; ``top_5_accuracy`` is there with more than five classes.

    Args:
        probabilities: Each row sums to 1.
        true: Class numbers.
        seed: Of the bootstrap.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    measures = scikit_learn("metrics")
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(1)
    right = predicted == true
    confusion = np.asarray(measures.confusion_matrix(true, predicted, labels=classes), np.int64)
    scores = {name: float(value) for name, value in _scores(*_margins(confusion)).items()}
    resampled = _resample_scores(confusion, seed)
    # Wilson's interval has the plain name: it holds near 0 and 1 too, where a bootstrap's does not.
    resampled["accuracy_bootstrap"] = resampled.pop("accuracy")
    # Each class against the rest, unweighted: rare classes count as much as common ones.
    areas = [_area(probabilities[:, k], true == k) for k in classes]
    curve = reliability(probabilities.max(1), right)
    found = {
        "accuracy": scores.pop("accuracy"),
        **_wilson("accuracy", right),
        **scores,
        **_bounds(resampled),
        **_mean_of("auroc", areas),
        "log_loss": float(measures.log_loss(true, probabilities, labels=classes)),
        **_calibration(curve),
    }
    if len(classes) > _TOP:
        top = measures.top_k_accuracy_score(true, probabilities, k=_TOP, labels=classes)
        found["top_5_accuracy"] = float(top)
    parts = measures.precision_recall_fscore_support(
        true, predicted, labels=classes, zero_division=0.0
    )
    rows = [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*parts, strict=True)]
    return ClassificationScores(found, list(rows), curve, confusion)


def _margins(confusion: Whole) -> tuple[Whole, Whole, Whole]:
    """Return (K,) each: how many examples a class has, how often it was predicted, how often
    rightly."""
    return confusion.sum(1), confusion.sum(0), confusion.diagonal()


def _scores(true: Whole, predicted: Whole, hits: Whole) -> dict[str, Floats]:
    """Return accuracy, balanced accuracy and macro F1 from counts (..., K) by class; the last
    dimension goes."""
    recall = _mean_where(hits / np.maximum(true, 1), true > 0)
    f1 = _mean_where(2 * hits / np.maximum(true + predicted, 1), true + predicted > 0)
    return {"accuracy": hits.sum(-1) / true.sum(-1), "balanced_accuracy": recall, "macro_f1": f1}


def _mean_where(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    return np.asarray((values * counted).sum(-1) / np.maximum(counted.sum(-1), 1))


# ----------------------------------------------------------------------------------- several labels
def has_label(probabilities: Floats) -> NDArray[np.bool_]:
    """Return which labels are predicted: those that are as likely as not, or likelier."""
    return probabilities >= _THRESHOLD


def evaluate_labels(probabilities: Floats, true: Whole, seed: int = 0) -> ClassificationScores:
    """Score probabilities (N, K) of labels that each example has or has not; ``true`` (N, K) is 0
    or 1.

    A label is predicted as ``has_label`` says. ``subset_accuracy`` is the share of examples with
    every label right, ``label_accuracy`` that of all N x K decisions. Average precision and area
    under the ROC curve (``auroc``) as the mean over labels (``macro``, of those for which it is
    defined) and over all decisions together (``micro``); F1 too.

    Args:
        probabilities: Of each label by itself.
        true: Which labels each example has.
        seed: Of the bootstrap.

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    measures = scikit_learn("metrics")
    predicted = has_label(probabilities).astype(np.int64)
    right = predicted == true
    columns = range(true.shape[1])
    parts = np.stack((true, predicted, true * predicted), 1)  # (N, 3, K)
    scores = _label_scores(parts.sum(0)[None])
    # Labels of an example belong together, so examples are drawn here, not cells of a matrix.
    flat = parts.reshape(len(true), -1)
    resampled = [
        _label_scores((weights @ flat).reshape(-1, 3, true.shape[1]))
        for weights in bootstrap_weights(len(true), seed)
    ]
    areas = [_area(probabilities[:, k], true[:, k]) for k in columns]
    precisions = [_precision(measures, probabilities[:, k], true[:, k]) for k in columns]
    curve = reliability(probabilities.ravel(), true.ravel() > 0)
    decisions = (probabilities.ravel(), true.ravel())
    micro = {
        "micro_average_precision": _precision(measures, *decisions),
        "micro_auroc": _area(*decisions),
    }
    found = {
        "subset_accuracy": float(right.all(1).mean()),
        **_wilson("subset_accuracy", right.all(1)),
        "label_accuracy": float(right.mean()),
        **{name: float(value[0]) for name, value in scores.items()},
        **_bounds({name: np.concatenate([chunk[name] for chunk in resampled]) for name in scores}),
        **_mean_of("macro_average_precision", precisions),
        **_mean_of("macro_auroc", areas),
        **{name: value for name, value in micro.items() if value is not None},
        **_calibration(curve),
    }
    counts, guessed, hits = parts.sum(0)
    f1 = 2 * hits / np.maximum(counts + guessed, 1)
    rows = [(precisions[k], areas[k], float(f1[k]), int(counts[k])) for k in columns]
    return ClassificationScores(found, rows, curve, np.zeros((0, 0), np.int64))


def _label_scores(counts: Whole) -> dict[str, Floats]:
    """Return F1 over labels and over decisions from counts (R, 3, K): true, predicted, both."""
    true, predicted, hits = counts[:, 0], counts[:, 1], counts[:, 2]
    micro = 2 * hits.sum(1) / np.maximum((true + predicted).sum(1), 1)
    macro = _mean_where(2 * hits / np.maximum(true + predicted, 1), true + predicted > 0)
    return {"macro_f1": macro, "micro_f1": micro}


# ---------------------------------------------------------------------------------------- intervals
def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share that was seen as ``right`` of ``total``, at 95% for z = 1.96.

    Source:
        Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share = right / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _wilson(name: str, right: NDArray[np.bool_]) -> dict[str, float]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {f"{name}_low_95": low, f"{name}_high_95": high}


def resamples(cells: Whole, seed: int) -> Iterator[Whole]:
    """Yield (R, C), a hundred resamples at a time: what examples drawn with replacement give each
    cell (C,).

    Source:
        Efron, 1979, "Bootstrap methods: another look at the jackknife", The Annals of Statistics
        7(1).
    """
    generator = np.random.default_rng(seeding.key(seed, "bootstrap"))
    for _ in range(_CHUNKS):
        # What a resample holds of each cell is multinomial: the cost is that of the cells, not of
        # the examples, so a million examples are resampled as quickly as a thousand.
        yield generator.multinomial(cells.sum(), cells / cells.sum(), _AT_ONCE)


def _resample_scores(confusion: Whole, seed: int) -> dict[str, Floats]:
    """Return (R,) of each score over the resamples."""
    size = len(confusion)
    rows, columns = np.nonzero(confusion)
    found: list[dict[str, Floats]] = []
    for drawn in resamples(confusion[rows, columns], seed):
        margins = (_sum_by_group(drawn, rows, size), _sum_by_group(drawn, columns, size))
        found.append(_scores(*margins, _sum_by_group(drawn * (rows == columns), rows, size)))
    return {name: np.concatenate([chunk[name] for chunk in found]) for name in found[0]}


def _sum_by_group(drawn: Whole, groups: Whole, size: int) -> Whole:
    """Return (R, K): counts (R, C) summed over the cells of each group (C,)."""
    # One bincount over all resamples: np.add.at is several times slower.
    places = np.arange(len(drawn))[:, None] * size + groups
    sums = np.bincount(places.ravel(), drawn.ravel(), len(drawn) * size)
    return sums.reshape(-1, size).astype(np.int64)


def _bounds(resampled: dict[str, Floats]) -> dict[str, float]:
    """Return the 2.5th and 97.5th percentile of each score."""
    found = {name: np.percentile(values, (2.5, 97.5)) for name, values in resampled.items()}
    ends = (("low", 0), ("high", 1))
    return {f"{name}_{end}_95": float(pair[at]) for name, pair in found.items() for end, at in ends}


# ------------------------------------------------------------------------------------------- pieces
def _area(probabilities: Floats, true: NDArray[Any]) -> float | None:
    """Return the area under the ROC curve, None where all examples are of one kind.

    It is the chance that an example of the class gets a higher probability than another one: the
    rank-sum statistic.

    Source:
        Hanley and McNeil, 1982, "The meaning and use of the area under a receiver operating
        characteristic curve".
    """
    positive = true > 0
    members = int(positive.sum())
    if not 0 < members < len(true):
        return None
    _, place, ties = np.unique(probabilities, return_inverse=True, return_counts=True)
    # Equals share the middle rank: such a pair then counts half, as in the area by trapezoids.
    ranks = (ties.cumsum() - (ties - 1) / 2)[place]
    pairs = members * (len(true) - members)
    return float((ranks[positive].sum() - members * (members + 1) / 2) / pairs)


def _precision(measures: Any, probabilities: Floats, true: NDArray[Any]) -> float | None:
    """Return the average precision, None where no example has the label."""
    if not true.any():  # scikit-learn warns, and says 0
        return None
    return float(measures.average_precision_score(true, probabilities))


def _mean_of(name: str, values: list[float | None]) -> dict[str, float]:
    defined = [value for value in values if value is not None]
    return {name: float(np.mean(defined))} if defined else {}


def _calibration(curve: Reliability) -> dict[str, float]:
    return {
        "expected_calibration_error": curve.expected_error,
        "maximum_calibration_error": curve.maximum_error,
    }
