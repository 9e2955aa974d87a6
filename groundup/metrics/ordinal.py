"""How far off a classifier is where the classes have an order.

Legend: R resamples, K classes, C cells of the confusion matrix that are not 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groundup.metrics.classification import resamples

__all__ = ["evaluate_order"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def evaluate_order(confusion: Whole, seed: int = 0) -> dict[str, float]:
    """Return how far predictions are off, each measure with a 95% interval by bootstrap.

    ``mean_absolute_error`` is by how many classes a prediction is off on average.
    ``quadratic_weighted_kappa`` is 1 minus the squared distances over those of predictions that are
    as frequent but know nothing: 1 is perfect, 0 is chance; it is left out where all examples have,
        and all predictions are, one and the same class.

    Args:
        confusion: (K, K) counts; rows are true classes, columns predicted ones, both in their
            order.
        seed: Of the bootstrap.

    Source:
        Cohen, 1968, "Weighted kappa: nominal scale agreement with provision for scaled disagreement
        or partial credit".
    """
    rows, columns = np.nonzero(confusion)
    cells = confusion[rows, columns]
    scores = _scores(cells[None], rows, columns, len(confusion))
    drawn = [_scores(chunk, rows, columns, len(confusion)) for chunk in resamples(cells, seed)]
    found: dict[str, float] = {}
    # A resample of one class alone has no kappa; the interval is over those that have one.
    for name, value in scores.items():
        every = np.concatenate([chunk[name] for chunk in drawn])
        defined = every[np.isfinite(every)]
        if np.isfinite(value[0]):
            low, high = np.percentile(defined, (2.5, 97.5)).tolist()
            found |= {name: float(value[0]), f"{name}_low_95": low, f"{name}_high_95": high}
    return found


def _scores(drawn: Whole, rows: Whole, columns: Whole, size: int) -> dict[str, Floats]:
    """Return (R,) of each measure from counts (R, C) of the cells at ``rows`` and ``columns``; NaN
    where undefined."""
    distance = np.abs(rows - columns)
    places = np.arange(size)
    total = drawn.sum(1)
    true = drawn @ (rows[:, None] == places)  # (R, K)
    predicted = drawn @ (columns[:, None] == places)  # (R, K)
    squares = (places[:, None] - places) ** 2
    # What independent predictions with the same frequencies would be off by: the margins' product.
    chance = ((true @ squares) * predicted).sum(1) / total
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where there is one class alone
        kappa = 1 - (drawn @ distance**2) / chance
    return {"mean_absolute_error": drawn @ distance / total, "quadratic_weighted_kappa": kappa}
