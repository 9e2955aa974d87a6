"""From samples to spectra: resampling, frames, mel filters, cepstral coefficients and their
differences.

Shape legend: T samples, N frames, W samples of a frame, K frequencies, M mel bands, C coefficients,
    D features.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = [
    "cosine_transform",
    "differences",
    "fft_size",
    "log_mel",
    "mel_filters",
    "resample",
    "resampling_taps",
]

Floats = NDArray[np.float64]

# Of the energy in a band, so that silence has a logarithm.
_FLOOR = 1e-10
# What resampling takes off frequencies that the new rate cannot hold.
_STOP_DB = 80.0
# Share of the band, below the highest frequency, over which it fades.
_TRANSITION = 0.1
# Frames to either side.
_DIFFERENCE_REACH = 2


# --------------------------------------------------------------------------------------- resampling
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


@lru_cache(maxsize=32)
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


# ------------------------------------------------------------------------------------------ spectra
def fft_size(window: int) -> int:
    """Return the power of two that a frame is padded to."""
    return 1 << (window - 1).bit_length()


@lru_cache(maxsize=32)
def mel_filters(bands: int, size: int, rate: int, lowest_hz: float, highest_hz: float) -> Floats:
    """Return (K, M) triangular filters, their corners at equal distances on the mel scale, 2595
    log10(1 + f / 700).

    Args:
        bands: How many.
        size: Samples of the Fourier transform, which gives K = size / 2 + 1 frequencies.
        rate: Samples a second.
        lowest_hz: Where the first filter begins.
        highest_hz: Where the last one ends.

    Source:
        Davis and Mermelstein, 1980, "Comparison of parametric representations for monosyllabic word
        recognition", figure 1; Young et al., 2006, "The HTK book", section 5.4, for the scale.
        Departs from HTK: the triangles' sides are straight in hertz, not in mel.
    """
    low, high = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (lowest_hz, highest_hz))
    corners = 700.0 * (10.0 ** (np.linspace(low, high, bands + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, rate / 2, size // 2 + 1)[:, None]
    rising = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    # The lower of the two sides is the triangle; below 0 it is outside.
    filters: Floats = np.maximum(0.0, np.minimum(rising, falling))
    return filters


def log_mel(
    samples: NDArray[Any], window: int, hop: int, preemphasis: float, filters: Floats
) -> Floats:
    """Return (N, M), the natural logarithm of the energy in each mel band of each frame.

    Frames of W samples begin every ``hop`` samples; what is left at the end is dropped, and a sound
    shorter than one frame is padded with silence. In each frame, ``preemphasis`` times the sample
    before is taken off, and a Hamming window laid over it.

    Source:
        "The HTK book", sections 5.2 and 5.4. Departs from it: sums of squares, not of magnitudes.
    """
    values = np.pad(np.asarray(samples, np.float64), (0, max(0, window - len(samples))))
    frames = sliding_window_view(values, window)[::hop]
    # Before the first sample of a frame there is none: it counts as its own.
    before = np.concatenate((frames[:, :1], frames[:, :-1]), 1)
    spectrum = np.fft.rfft(
        (frames - preemphasis * before) * np.hamming(window), 2 * (len(filters) - 1)
    )
    energy: Floats = (spectrum.real**2 + spectrum.imag**2) @ filters
    return np.log(np.maximum(energy, _FLOOR))


@lru_cache(maxsize=32)
def cosine_transform(bands: int, coefficients: int) -> Floats:
    """Return (M, C), the orthonormal discrete cosine transform (type II) that makes cepstral
    coefficients of bands.

    Source:
        Davis and Mermelstein, 1980, equation 1. Departs from HTK: coefficient 0 stays in place of
        the energy, and there is no liftering, which normalised features do not show.
    """
    band = np.arange(bands)[:, None] + 0.5
    order = np.arange(coefficients)[None, :]
    # The first coefficient is scaled otherwise, which makes the transform orthonormal.
    scale = np.where(order == 0, math.sqrt(1.0 / bands), math.sqrt(2.0 / bands))
    transform: Floats = scale * np.cos(math.pi / bands * band * order)
    return transform


def differences(features: Floats) -> Floats:
    """Return (N, D), the slope of each feature over 2 frames to either side; the ends are repeated.

    Source:
        Furui, 1986, "Speaker-independent isolated word recognition using dynamic features of speech
        spectrum"; "The HTK book", equation 5.16.
    """
    padded = np.pad(features, ((_DIFFERENCE_REACH, _DIFFERENCE_REACH), (0, 0)), mode="edge")
    count = len(features)
    slope = np.zeros_like(features)
    for away in range(1, _DIFFERENCE_REACH + 1):
        after = padded[_DIFFERENCE_REACH + away :]
        before = padded[_DIFFERENCE_REACH - away :]
        slope += away * (after[:count] - before[:count])
    return slope / (2 * sum(away**2 for away in range(1, _DIFFERENCE_REACH + 1)))
