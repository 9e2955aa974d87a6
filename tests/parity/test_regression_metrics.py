"""Our metrics of regression are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from groundup.metrics.regression import deciles, evaluate_numbers, regression_metrics

pytestmark = [
    pytest.mark.usefixtures("library"),
    pytest.mark.xdist_group("sklearn"),
]  # imported by one worker
metrics: Any = None


@pytest.fixture
def library() -> None:
    """Import scikit-learn when a test runs, for it takes seconds."""
    globals()["metrics"] = pytest.importorskip("sklearn.metrics")


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_root_mean_squared_error_mean_absolute_error_and_r2(offset: float) -> None:
    draws = np.random.default_rng(0)
    true = draws.normal(size=500) * 3 + offset
    predicted = true + draws.normal(size=500)
    found = regression_metrics(predicted, true)
    assert found["rmse"] == pytest.approx(
        metrics.root_mean_squared_error(true, predicted), rel=1e-9
    )
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted), rel=1e-9)
    assert found["r2"] == pytest.approx(metrics.r2_score(true, predicted), rel=1e-9)


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_truth_that_does_not_vary(error: float) -> None:
    true = np.full(4, 0.1)
    assert regression_metrics(true + error, true)["r2"] == metrics.r2_score(true, true + error)


@pytest.mark.slow
def test_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    draws, inside = np.random.default_rng(1), 0
    for trial in range(100):
        true = np.zeros(200) + draws.normal(size=200)
        found = evaluate_numbers(np.zeros(200), true, 0.0, seed=trial)
        inside += found["rmse_low_95"] <= 1.0 <= found["rmse_high_95"]
    assert 88 <= inside <= 100


def test_the_baseline_and_the_seed() -> None:
    true = np.arange(50.0)
    first, again, other = (evaluate_numbers(true + 1, true, 24.5, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["r2_low_95"] != other["r2_low_95"]
    assert first["baseline_rmse"] == pytest.approx(true.std())
    assert first["rmse"] == first["rmse_low_95"] == pytest.approx(1.0)


def test_deciles_go_by_the_prediction() -> None:
    predicted, true = np.arange(100.0)[::-1], np.arange(100.0)[::-1] + 2
    found = deciles(predicted, true)
    assert [part.examples for part in found] == [10] * 10
    assert (found[0].lowest, found[0].highest, found[9].highest) == (0.0, 9.0, 99.0)
    assert all(part.mean_residual == part.mae == 2.0 for part in found)
    assert len(deciles(predicted[:3], true[:3])) == 3
