"""How far off predictions of ordered classes are, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.ordinal import evaluate_order


def test_distances_and_kappa() -> None:
    # Of 8 examples 5 are right, 2 are one class off and 1 is two off.
    confusion = np.array([[2, 1, 1], [0, 2, 0], [0, 1, 1]])
    found = evaluate_order(confusion)
    assert found["mean_absolute_error"] == pytest.approx(4 / 8)
    # Squares: 2 of 1 and 1 of 4 are 6. By chance true (4, 2, 2) meets predicted (2, 4, 2): 11.
    chance = (4 * (4 * 1 + 2 * 4) + 2 * (2 * 1 + 2 * 1) + 2 * (2 * 4 + 4 * 1)) / 8
    assert chance == 10.0
    assert found["quadratic_weighted_kappa"] == pytest.approx(1 - 6 / 10)
    assert found["mean_absolute_error_low_95"] == 0.125
    assert found["mean_absolute_error_high_95"] == 1.0


def test_all_right_and_all_the_other_way_round() -> None:
    assert evaluate_order(np.diag([3, 4]))["quadratic_weighted_kappa"] == 1.0
    assert evaluate_order(np.diag([3, 3])[::-1])["quadratic_weighted_kappa"] == -1.0


def test_one_class_alone_has_no_kappa() -> None:
    found = evaluate_order(np.array([[5, 0], [0, 0]]))
    assert found["mean_absolute_error"] == 0.0
    assert "quadratic_weighted_kappa" not in found
