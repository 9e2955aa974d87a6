"""Whether probabilities mean what they say, and the one number that often fixes them.

Legend: N examples, K classes or labels, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding

__all__ = ["Reliability", "fit_temperature", "halves", "probabilities_of", "reliability"]

Floats = NDArray[np.float64]
_COLDEST = 0.01
_HOTTEST = 100.0
_HALVINGS = 50  # of a range of 4 decades: the temperature is then known to float64's last digits


@dataclass(frozen=True)
class Reliability:
    """How often a classifier is right at each level of confidence.

    Attributes:
        counts: (B,) examples in each bin of confidence; the bins cut 0 to 1 into equal parts.
        confidence: (B,) their mean confidence, 0 where there are none.
        right: (B,) the share of them that is right, 0 where there are none.
    """

    counts: NDArray[np.int64]
    confidence: Floats
    right: Floats

    @property
    def expected_error(self) -> float:
        """The mean distance of confidence from the share that is right, over the examples: ECE."""
        return float(
            (np.abs(self.confidence - self.right) * self.counts).sum() / max(1, self.counts.sum())
        )

    @property
    def maximum_error(self) -> float:
        """The distance in the worst bin: MCE."""
        return float(np.abs(self.confidence - self.right).max())


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> Reliability:
    """Sort examples into bins of confidence.

    Args:
        confidence: (N,) probabilities of what was predicted, 0 to 1.
        right: (N,) whether it was right.
        bins: How many bins of equal width.

    Source:
        Guo et al., 2017 (arXiv:1706.04599), section 2: reliability diagrams, ECE (equation 3), MCE
        (equation 5).
    """
    # A confidence of 1 belongs to the last bin, which ends there.
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.maximum(counts, 1)  # of empty bins the sums are 0 as well
    confidences = np.bincount(place, confidence, bins)
    hits = np.bincount(place, right.astype(np.float64), bins)
    return Reliability(counts, confidences / filled, hits / filled)


def probabilities_of(outputs: Floats, *, several: bool = False, temperature: float = 1.0) -> Floats:
    """Return (N, K): the softmax of a model's outputs (N, K) over ``temperature``; for several
    labels the sigmoid."""
    scaled = outputs / temperature
    # Both forms never exponentiate a large positive number, which would overflow.
    if several:
        return np.exp(-np.logaddexp(0.0, -scaled))
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def fit_temperature(outputs: Floats, true: NDArray[np.int64], *, several: bool = False) -> float:
    """Return the temperature with which the outputs give the true classes the highest likelihood,
    0.01 to 100.

    Above 1 the model was too sure. The predicted class stays the same.

    Args:
        outputs: (N, K) the model's outputs before the softmax.
        true: (N,) class numbers; of several labels (N, K), 0 or 1.
        several: Whether an example may have several labels.

    Source:
        Guo et al., 2017 (arXiv:1706.04599), section 4.2: temperature scaling.
    """
    wanted = true.astype(np.float64) if several else np.eye(outputs.shape[1])[true]
    # The likelihood is concave in the inverse temperature, so its one optimum is found by halving,
    # without a step size that could be wrong.
    low = np.log(_COLDEST)
    high = np.log(_HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = probabilities_of(outputs, several=several, temperature=float(np.exp(middle)))
        slope = ((found - wanted) * outputs).sum()  # of the loss, by the inverse temperature
        if slope > 0:  # too sure
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def halves(count: int, seed: int) -> NDArray[np.bool_]:
    """Return (N,) whether each example belongs to the half on which the temperature is fitted,
    drawn by key."""
    order = np.random.default_rng(seeding.key(seed, "calibration halves")).permutation(count)
    return np.asarray(order < count // 2)
