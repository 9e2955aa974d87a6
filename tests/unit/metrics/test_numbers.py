"""Errors of predicted numbers, their intervals and tenths, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.regression import Decile, deciles, evaluate_numbers, regression_metrics

TRUE = np.array([1.0, 2.0, 3.0, 6.0])
PREDICTED = np.array([1.0, 4.0, 2.0, 6.0])


def test_errors_and_the_share_that_is_explained() -> None:
    # Squared errors are 0, 4, 1, 0; of the mean, 3, they are 4, 1, 0, 9.
    assert regression_metrics(PREDICTED, TRUE) == pytest.approx(
        {"rmse": np.sqrt(5 / 4), "mae": 3 / 4, "r2": 1 - 5 / 14}
    )


def test_targets_that_do_not_vary() -> None:
    same = np.full(3, 2000.1)
    assert regression_metrics(same, same)["r2"] == 1.0
    assert regression_metrics(np.append(same[:2], 2001.1), same)["r2"] == 0.0


def test_years_are_no_harder_than_small_numbers() -> None:
    found = regression_metrics(PREDICTED + 1e6, TRUE + 1e6)
    assert found == pytest.approx(regression_metrics(PREDICTED, TRUE), rel=1e-6)


def test_an_interval_and_the_baseline() -> None:
    found = evaluate_numbers(PREDICTED, TRUE, mean=2.0, seed=3)
    assert found["baseline_mae"] == 1.5
    assert found["baseline_rmse"] == pytest.approx(np.sqrt(18 / 4))
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 4))
    # What these draws give: another seed, another number of draws or another end gives another.
    assert found["mae_low_95"] == 0.0
    assert found["mae_high_95"] == 1.5
    assert found["r2_low_95"] == -15.0
    assert found["r2_high_95"] == 1.0
    assert found == evaluate_numbers(PREDICTED, TRUE, mean=2.0, seed=3)
    assert found["rmse_low_95"] <= found["rmse"] <= found["rmse_high_95"] < 2.0


def test_tenths_of_the_predictions() -> None:
    assert deciles(PREDICTED, TRUE) == [
        Decile(1.0, 1.0, 1, 0.0, 0.0, 0.0),
        Decile(2.0, 2.0, 1, 1.0, 1.0, 1.0),
        Decile(4.0, 4.0, 1, -2.0, 2.0, 2.0),
        Decile(6.0, 6.0, 1, 0.0, 0.0, 0.0),
    ]
    many = deciles(np.arange(25.0), np.arange(25.0) + 1)
    assert [tenth.examples for tenth in many] == [3] * 5 + [2] * 5
    assert (many[0].lowest, many[0].highest, many[0].mean_residual) == (0.0, 2.0, 1.0)
