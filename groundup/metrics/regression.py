"""How good predicted numbers are, in the units of the data.

Legend: N examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding

__all__ = ["Decile", "deciles", "evaluate_numbers", "regression_metrics"]

Values = NDArray[np.float64]
_RESAMPLES = 1000
_DRAWS = 10**8  # of examples, over all resamples: some seconds


@dataclass(frozen=True)
class Decile:
    """The residuals, true - predicted, of the examples whose predictions are between two values."""

    lowest: float
    highest: float
    examples: int
    mean_residual: float
    mae: float
    rmse: float


def regression_metrics(predicted: Values, true: Values) -> dict[str, float]:
    """Return root mean squared error, mean absolute error and R2 of predictions (N,).

    R2 is 1 minus the squared error over that of the mean of ``true``; where ``true`` does not vary
    it is 0, or 1 if every prediction is right.
    """
    # By sums, as each resample below: a mean of an interval and the value agree to the last bit.
    statistics = _statistics(predicted, true)
    rmse, mae, r2 = _from_sums(np.ones(len(true)) @ statistics, len(true))
    return {"rmse": rmse, "mae": mae, "r2": r2}


def evaluate_numbers(
    predicted: Values, true: Values, mean: float, seed: int = 0
) -> dict[str, float]:
    """Return the metrics with 95% intervals, and those of always predicting one number.

    Args:
        predicted: (N,).
        true: (N,).
        mean: The number to compare with: the mean over the training split.
        seed: Of the resamples.

    Source:
        Percentile bootstrap: Efron, 1979, "Bootstrap methods: another look at the jackknife".
    """
    found = regression_metrics(predicted, true)
    intervals = np.quantile(_bootstrap(predicted, true, seed), (0.025, 0.975), axis=0)
    scores: dict[str, float] = {}
    for column, (name, value) in enumerate(found.items()):
        low, high = intervals[:, column].tolist()
        scores |= {name: value, f"{name}_low_95": low, f"{name}_high_95": high}
    baseline = regression_metrics(np.full(len(true), mean), true)
    return scores | {"baseline_rmse": baseline["rmse"], "baseline_mae": baseline["mae"]}


def deciles(predicted: Values, true: Values) -> list[Decile]:
    """Return the residuals of each tenth of the examples, from the lowest predictions to the
    highest."""
    found = []
    for part in np.array_split(np.argsort(predicted, kind="stable"), min(10, len(true))):
        residual = true[part] - predicted[part]
        scores = regression_metrics(predicted[part], true[part])
        found.append(
            Decile(
                float(predicted[part[0]]),
                float(predicted[part[-1]]),
                len(part),
                float(residual.mean()),
                scores["mae"],
                scores["rmse"],
            )
        )
    return found


def _statistics(predicted: Values, true: Values) -> Values:
    """Return (N, 4): squared and absolute error, true value less the mean, and its square."""
    error = predicted - true
    # Centred, or the variance would be the difference of two large numbers: targets may be years.
    centred = true - true.mean()
    return np.stack((error**2, np.abs(error), centred, centred**2), 1)


def _from_sums(sums: Values, count: int) -> tuple[float, float, float]:
    squared, absolute, total, squares = sums.tolist()
    varies = squares - total**2 / count
    # Targets that are all alike leave nothing but rounding here, which must not be divided by.
    alike = varies <= 1e-12 * max(squares, 1e-300)
    r2 = float(squared == 0) if alike else 1 - squared / varies
    return float(np.sqrt(squared / count)), absolute / count, r2


def _bootstrap(predicted: Values, true: Values, seed: int) -> Values:
    statistics = _statistics(predicted, true)
    count = len(true)
    draws = np.random.default_rng(seeding.key(seed, "bootstrap"))
    resamples = max(100, min(_RESAMPLES, _DRAWS // count))
    # How often each example is drawn, times the statistics: no resample is ever gathered.
    sums = (
        np.bincount(draws.integers(0, count, count), minlength=count) @ statistics
        for _ in range(resamples)
    )
    return np.array([_from_sums(each, count) for each in sums])
