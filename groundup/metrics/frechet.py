"""How far made examples are from real ones, by what another model sees in them.

Legend: N and M examples, D features of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["frechet_distance", "nearest", "same_kind_share"]

Floats = NDArray[np.float64]
# Rows whose distances to all others are held at once.
_ROWS = 512


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the squared distance of two normal distributions with the means and covariances of
    features (N, D) and (M, D).

    It is never below 0, and shrinks as N and M grow, also between examples of one kind: only
    distances of equally many compare.

    Raises:
        ValueError: If one has fewer than two examples.

    Source:
        Dowson and Landau, 1982, "The Fréchet distance between multivariate normal distributions",
        equation 4; of features of pictures: Heusel et al., 2017 (arXiv:1706.08500), section 2.
        Departs from the latter: the features are the given ones, not those of Inception.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"got {len(one)} and {len(other)} examples; a covariance takes two or more"
        )
    first, second = (np.asarray(each, np.float64) for each in (one, other))
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    difference = first.mean(0) - second.mean(0)
    # The trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric: its
    # eigenvalues are real and, but for rounding, not negative.
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    both = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0)).sum()
    total = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * both
    return float(max(difference @ difference + total, 0.0))


def nearest(
    rows: NDArray[np.floating], among: NDArray[np.floating], *, themselves: bool = False
) -> tuple[NDArray[np.int64], Floats]:
    """Return for each of ``rows`` (N, D) which of ``among`` (M, D) is nearest (N,), and the root of
    the mean squared difference (N,).

    Args:
        rows: Whose neighbours are looked for.
        among: The neighbours.
        themselves: The two are the same examples, and none is its own neighbour.
    """
    others = np.asarray(among, np.float64)
    squares = (others**2).sum(1)
    places = np.zeros(len(rows), np.int64)
    distances = np.zeros(len(rows))
    for start in range(0, len(rows), _ROWS):
        part = np.asarray(rows[start : start + _ROWS], np.float64)
        # |a - b|^2 as one product of matrices, which rounding may take below 0.
        found = (part**2).sum(1)[:, None] + squares - 2 * part @ others.T
        own = np.arange(len(part))
        if themselves:
            found[own, start + own] = np.inf
        best = found.argmin(1)
        places[start : start + len(part)] = best
        # Of the nearest the difference itself: of a copy it is 0.
        gaps = part - others[best]
        distances[start : start + len(part)] = np.sqrt((gaps**2).mean(1))
    return places, distances


def same_kind_share(made: NDArray[np.floating], real: NDArray[np.floating]) -> float:
    """Return the share of examples whose nearest other example is of their own kind, made (N, D) or
    real (N, D).

    One half says that the two cannot be told apart so; 1, that they always can; less than one half,
    that what is made lies on real examples, as copies do.

    Raises:
        ValueError: If there are not as many of both kinds.

    Source:
        Lopez-Paz and Oquab, 2016 (arXiv:1610.06545), with the one nearest neighbour as classifier,
        leaving each example out in turn: Xu et al., 2018 (arXiv:1806.07755), section 2.
    """
    if len(made) != len(real):
        raise ValueError(
            f"got {len(made)} made and {len(real)} real examples; allowed: equally many"
        )
    kinds = np.repeat([0, 1], len(made))
    every = np.concatenate([made, real])
    places, _ = nearest(every, every, themselves=True)
    return float((kinds[places] == kinds).mean())
