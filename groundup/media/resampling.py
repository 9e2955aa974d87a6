"""Sounds at another rate, or at another speed.

Shape legend: T samples.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["resample", "resampling_taps"]

Floats = NDArray[np.float64]

# What resampling takes off frequencies that the new rate cannot hold.
_STOP_DB = 80.0
# Share of the band, below the highest frequency, over which it fades.
_TRANSITION = 0.1


def resample(samples: NDArray[Any], rate: int, new_rate: int) -> Floats:
    """Return a sound (T,) at another rate, ceil(T x new_rate / rate) samples.

    Each new sample is a weighted sum of those around it; the weights depend only on where it is
    between two old ones, its phase, of which there are ``new_rate / gcd``. Frequencies up to 0.9 of
    what both rates can hold are kept.

    Source:
        Crochiere and Rabiner, 1983, "Multirate digital signal processing", chapter 3: polyphase
        structures.
    """
    values = np.asarray(samples, np.float64)
    if rate == new_rate or not len(values):
        return values
    taps = resampling_taps(rate, new_rate)
    common = math.gcd(rate, new_rate)
    up = new_rate // common
    down = rate // common
    reach = taps.shape[1] // 2
    found = np.empty(-(-len(values) * up // down))
    around = sliding_window_view(np.pad(values, (reach, reach + down)), taps.shape[1])
    # New samples of one phase have the same weights, so each phase is one product of matrices.
    for first in range(min(up, len(found))):
        place, phase = divmod(first * down, up)
        chosen = found[first::up]
        chosen[:] = around[place::down][: len(chosen)] @ taps[phase]
    return found


@lru_cache(maxsize=64)
def resampling_taps(rate: int, new_rate: int) -> Floats:
    """Return (phases, taps): the weights of the old samples around a new one, which sum to 1.

    A sinc that cuts off in the middle of the transition, under a Kaiser window.

    Source:
        Kaiser, 1974, "Nonrecursive digital filter design using the I0-sinh window function": the
        window's shape and length for an attenuation.
    """
    common = math.gcd(rate, new_rate)
    up = new_rate // common
    down = rate // common
    # The lower of the two rates, by the old one: it says which frequencies both can hold.
    narrow = min(1.0, up / down)
    half = math.ceil((_STOP_DB - 7.95) / (2.285 * math.pi * _TRANSITION) / 2) / narrow
    reach = math.ceil(half)
    # In old samples.
    apart = np.arange(-reach, reach + 1)[None, :] - np.arange(up)[:, None] / up
    inside = np.clip(1.0 - (apart / half) ** 2, 0.0, None)
    window = np.where(
        np.abs(apart) <= half, np.i0(0.1102 * (_STOP_DB - 8.7) * np.sqrt(inside)), 0.0
    )
    taps: Floats = np.sinc(apart * narrow * (1.0 - _TRANSITION / 2)) * window
    # Cutting the sinc off leaves each phase a sum slightly off 1, which would be heard.
    taps /= taps.sum(1, keepdims=True)
    return taps
