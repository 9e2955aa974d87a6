"""From samples to spectra: frames, mel filters, cepstral coefficients and their differences.

Shape legend: T samples, N frames, W samples of a frame, K frequencies, M mel bands, C coefficients,
    D features.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = [
    "WHISPER_HOP",
    "WHISPER_RATE",
    "cosine_transform",
    "differences",
    "fft_size",
    "fill_up",
    "log_mel",
    "mel_filters",
    "slaney_filters",
    "whisper_frames",
    "whisper_settings",
]

Floats = NDArray[np.float64]

# Of the energy in a band, so that silence has a logarithm.
_FLOOR = 1e-10
WHISPER_RATE = 16000
WHISPER_WINDOW = 400
WHISPER_HOP = 160
# Frames to either side.
_DIFFERENCE_REACH = 2


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
    return _triangles(corners, np.linspace(0.0, rate / 2, size // 2 + 1))


@lru_cache(maxsize=32)
def slaney_filters(bands: int, size: int, rate: int) -> Floats:
    """Return (K, M) triangular filters from 0 to half the rate, each of area 1 over hertz, their
    corners at equal distances on a scale that is linear below 1,000 Hz and logarithmic above.

    Source:
        Slaney, 1998, "Auditory toolbox, version 2", technical report 1998-010: the function
        ``mfcc``, whose steps are of 200/3 Hz, and of a factor 6.4^(1/27) above.
    """
    step = math.log(6.4) / 27.0
    highest = 15.0 + math.log(rate / 2 / 1000.0) / step
    mels = np.linspace(0.0, highest, bands + 2)
    corners = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    # Wider filters would else gather more energy of the same noise.
    areas = 2.0 / (corners[2:] - corners[:-2])
    return _triangles(corners, np.linspace(0.0, rate / 2, size // 2 + 1)) * areas


def _triangles(corners: Floats, frequencies: Floats) -> Floats:
    """Return (K, M) filters that rise from each corner to the next, and fall to the one after."""
    places = frequencies[:, None]
    rising = (places - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - places) / (corners[2:] - corners[1:-1])
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


def whisper_frames(samples: NDArray[Any], bands: int) -> NDArray[np.float32]:
    """Return (N, M) as Whisper reads sounds of 16,000 samples a second: a frame each 160 samples.

    In float32 and by torch's transform, as the released weights were trained.

    Args:
        samples: (T,) of 160 samples or more; the features of silence after the end depend on how
            loud the sound is, so it is padded before.
        bands: 80, or 128 of the largest model.

    Source:
        Radford et al., 2022, "Robust speech recognition via large-scale weak supervision"
        (arXiv:2212.04356), section 2.2: 25 ms windows, 10 ms apart. The range of eight decades
        below the loudest and the scale are those of the authors' released code.
    """
    sound = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    window = torch.hann_window(WHISPER_WINDOW)
    # The transform mirrors half a window at each end, for which there must be as many samples.
    short = WHISPER_WINDOW // 2 + 1 - len(sound)
    sound = torch.nn.functional.pad(sound, (0, max(0, short)))
    spectrum = torch.stft(sound, WHISPER_WINDOW, WHISPER_HOP, window=window, return_complex=True)
    # The frame at the very end is of mirrored samples alone.
    power = spectrum[:, :-1].abs().square().contiguous()
    filters = torch.from_numpy(slaney_filters(bands, WHISPER_WINDOW, WHISPER_RATE))
    energy = filters.to(torch.float32).T @ power
    logarithm = energy.clamp(min=_FLOOR).log10()
    kept = logarithm.maximum(logarithm.max() - 8.0)
    found: NDArray[np.float32] = ((kept + 4.0) / 4.0).T.contiguous().numpy()
    return found


def fill_up(samples: NDArray[Any], seconds: float | None) -> NDArray[Any]:
    """Return the samples of a sound for ``whisper_frames``, silence behind them: as long as it
    says, or cut to that; None: to the next whole frame."""
    # A last part of a frame would be dropped, and with it the end of a word.
    wanted = -(-len(samples) // WHISPER_HOP) * WHISPER_HOP
    if seconds is not None:
        wanted = round(seconds * WHISPER_RATE)
    kept = samples[:wanted]
    return np.pad(kept, (0, wanted - len(kept)))


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


def whisper_settings(mel_bands: int, seconds: int) -> dict[str, Any]:
    """Return the contents of preprocessor_config.json by which ``transformers`` makes the frames
    that ``whisper_frames`` makes."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": mel_bands,
        "sampling_rate": WHISPER_RATE,
        "hop_length": WHISPER_HOP,
        "n_fft": 400,
        "chunk_length": seconds,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
