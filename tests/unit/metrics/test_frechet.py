"""Fréchet distances, neighbours, and whether two kinds of examples can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.metrics.frechet import frechet_distance, nearest, same_kind_share

pytestmark = pytest.mark.xdist_group("sklearn")  # SciPy is imported by one worker


def exactly(mean: np.ndarray, root: np.ndarray, count: int = 40) -> np.ndarray:
    """Return rows whose mean and covariance are these to the last bit but for rounding."""
    rows = np.random.default_rng(0).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return mean + whitened @ root.T


def test_it_is_the_formula_for_normal_distributions() -> None:
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    means = [np.zeros(3), np.array([1.0, -2.0, 0.5])]
    roots = [np.diag([1.0, 2.0, 3.0]), np.array([[2.0, 0, 0], [1, 1, 0], [0.5, -1, 2]])]
    one, other = (exactly(mean, root) for mean, root in zip(means, roots, strict=True))
    covariances = [root @ root.T for root in roots]
    both = sqrtm(covariances[0] @ covariances[1]).real
    wanted = 1 + 4 + 0.25 + np.trace(covariances[0] + covariances[1] - 2 * both)
    assert frechet_distance(one, other) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)
    # Of diagonal ones: the squared differences of means and of standard deviations.
    wide = exactly(np.zeros(3), np.diag([2.0, 2.0, 5.0]))
    assert frechet_distance(one, wide) == pytest.approx(1 + 0 + 4, rel=1e-9)


def test_more_features_than_examples_and_one_feature() -> None:
    rows = np.random.default_rng(1).normal(size=(5, 20))
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(rows, rows + 1) == pytest.approx(20.0, rel=1e-6)
    assert frechet_distance(rows[:, :1], rows[:, :1] + 2) == pytest.approx(4.0, rel=1e-9)
    with pytest.raises(ValueError, match="got 1 and 5 examples"):
        frechet_distance(rows[:1], rows)


def test_neighbours_are_those_of_all_distances() -> None:
    drawn = np.random.default_rng(2)
    rows, among = drawn.normal(size=(700, 6)), drawn.normal(size=(50, 6))
    among[7] = rows[600]
    places, distances = nearest(rows, among)
    every = pytest.importorskip("scipy.spatial.distance").cdist(rows, among)
    assert (places == every.argmin(1)).all()
    np.testing.assert_allclose(distances, every.min(1) / np.sqrt(6), rtol=1e-12)
    assert (places[600], distances[600]) == (7, 0.0)
    own, apart = nearest(rows, rows, themselves=True)
    assert (own != np.arange(700)).all()
    assert apart.min() > 0


def test_what_cannot_be_told_apart() -> None:
    drawn = np.random.default_rng(3)
    one, other = drawn.normal(size=(2, 400, 3))
    assert same_kind_share(one, other) == pytest.approx(0.5, abs=0.05)
    assert same_kind_share(one, other + 10) == 1.0
    assert same_kind_share(one, one + 1e-9) == 0.0  # copies
    with pytest.raises(ValueError, match="400 made and 399 real"):
        same_kind_share(one, other[1:])
