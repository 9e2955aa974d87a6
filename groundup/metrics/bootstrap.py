"""Resamples of examples, for intervals.

Source: Efron, 1979, "Bootstrap methods: another look at the jackknife", The Annals of Statistics
    7(1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from groundup.core import seeding

__all__ = ["bootstrap_weights"]

_AT_ONCE = 100


def bootstrap_weights(
    examples: int, seed: int, resamples: int = 1000
) -> Iterator[NDArray[np.int64]]:
    """Yield (R, N): how often each example is drawn in each resample, a hundred of them at a time.

    The same for the same number of examples and seed, so that two scores are compared on the same
    resamples.
    """
    generator = np.random.default_rng(seeding.key(seed, "bootstrap"))
    for begin in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - begin)
        yield generator.multinomial(examples, np.full(examples, 1 / examples), count)
