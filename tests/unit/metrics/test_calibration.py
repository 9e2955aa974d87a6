"""Confidence next to how often it is right, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.calibration import fit_temperature, halves, probabilities_of, reliability


def test_bins_of_confidence() -> None:
    found = reliability(
        np.array([0.1, 0.3, 0.6, 0.7, 1.0]), np.array([False, True, True, False, True]), bins=2
    )
    assert found.counts.tolist() == [2, 3]
    np.testing.assert_allclose(found.confidence, [0.2, 2.3 / 3])
    np.testing.assert_allclose(found.right, [0.5, 2 / 3])
    assert found.expected_error == pytest.approx((2 * 0.3 + 3 * 0.1) / 5)
    assert found.maximum_error == pytest.approx(0.3)


def test_an_empty_bin_has_no_error() -> None:
    found = reliability(np.array([0.9]), np.array([True]), bins=10)
    assert found.counts.tolist() == [0] * 9 + [1]
    assert found.maximum_error == pytest.approx(0.1)


def test_probabilities() -> None:
    outputs = np.log(np.array([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(probabilities_of(outputs), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(probabilities_of(outputs, temperature=0.5)[0], [0.1, 0.9])
    np.testing.assert_allclose(probabilities_of(outputs, several=True)[0], [0.5, 0.75])
    assert np.isfinite(probabilities_of(np.array([[1e4, -1e4]]))).all()
    assert np.isfinite(probabilities_of(np.array([[1e4, -1e4]]), several=True)).all()


def test_the_temperature_makes_confidence_what_is_right() -> None:
    # 3 of 4 are right: the likeliest probability is 3/4, and the outputs say 0.9.
    outputs = np.tile(np.log([[9.0, 1.0]]), (4, 1))
    found = fit_temperature(outputs, np.array([0, 0, 0, 1]))
    assert found == pytest.approx(np.log(9) / np.log(3))
    labels = fit_temperature(
        np.tile(np.log([[9.0]]), (4, 1)), np.array([[1], [1], [1], [0]]), several=True
    )
    assert labels == pytest.approx(np.log(9) / np.log(3))


def test_half_of_the_examples_by_key() -> None:
    assert halves(7, 0).sum() == 3
    assert halves(100, 0).tolist() == halves(100, 0).tolist() != halves(100, 1).tolist()
    assert halves(6, 5).tolist() == [False, True, True, False, False, True]
