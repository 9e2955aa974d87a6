"""How far the mean of a sample may be from that of all there is, by chance."""

from __future__ import annotations

import math

__all__ = ["standard_error"]


def standard_error(total: float, squares: float, count: float) -> float:
    """Return the standard error of the mean of N values, in the values' own unit.

    Args:
        total: The sum of the values.
        squares: The sum of their squares.
        count: N; of fewer than two nothing is known, and the result is the mean itself.
    """
    mean = total / max(count, 1.0)
    if count < 2:
        return abs(mean)
    variance = max(squares / count - mean**2, 0.0) * count / (count - 1)
    return math.sqrt(variance / count)
