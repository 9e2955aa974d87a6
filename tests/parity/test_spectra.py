"""Features of sound are those of other libraries: mel filters, log mel spectra, the cosine
transform, resampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from later import Library

from groundup.media.resampling import resample, resampling_taps
from groundup.processors.spectrogram import (
    cosine_transform,
    fft_size,
    log_mel,
    mel_filters,
)

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker
audio: Any = Library("transformers.audio_utils")
fft: Any = Library("scipy.fft")
signal: Any = Library("scipy.signal")


def sound(samples: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-1, 1, samples)


@pytest.mark.parametrize(
    ("bands", "size", "rate", "low", "high"),
    [(40, 512, 16000, 20.0, 8000.0), (26, 256, 8000, 0.0, 4000.0), (80, 1024, 22050, 50.0, 7600.0)],
)
def test_mel_filters(bands: int, size: int, rate: int, low: float, high: float) -> None:
    theirs = audio.mel_filter_bank(
        size // 2 + 1, bands, low, high, rate, norm=None, mel_scale="htk"
    )
    np.testing.assert_allclose(mel_filters(bands, size, rate, low, high), theirs, atol=1e-12)


@pytest.mark.parametrize("samples", [400, 799, 16000])
@pytest.mark.parametrize("preemphasis", [0.0, 0.97])
def test_log_mel_spectra(samples: int, preemphasis: float) -> None:
    filters = mel_filters(40, fft_size(400), 16000, 20.0, 8000.0)
    theirs = audio.spectrogram(
        sound(samples),
        audio.window_function(400, "hamming", periodic=False),
        **{
            "frame_length": 400,
            "hop_length": 160,
            "fft_length": 512,
            "power": 2.0,
            "center": False,
        },
        **{
            "preemphasis": preemphasis or None,
            "mel_filters": filters,
            "mel_floor": 1e-10,
            "log_mel": "log",
        },
    )
    ours = log_mel(sound(samples), 400, 160, preemphasis, filters)
    assert ours.shape == (1 + (samples - 400) // 160, 40)
    np.testing.assert_allclose(ours, theirs.T, atol=1e-4)  # theirs holds the spectrum in complex64


def test_the_cosine_transform() -> None:
    values = sound(60).reshape(3, 20)
    np.testing.assert_allclose(
        values @ cosine_transform(20, 13), fft.dct(values, norm="ortho")[:, :13], atol=1e-12
    )


@pytest.mark.parametrize(
    ("rate", "new_rate"),
    [(8000, 16000), (44100, 16000), (48000, 16000), (11025, 16000), (16000, 8000), (999, 1000)],
)
def test_resampling_is_filling_with_zeros_filtering_and_leaving_out(
    rate: int, new_rate: int
) -> None:
    common = math.gcd(rate, new_rate)
    up, down, taps = new_rate // common, rate // common, resampling_taps(rate, new_rate)
    reach = taps.shape[1] // 2
    filter_taps = np.zeros(
        (2 * reach + 1) * up
    )  # one filter at ``up`` times the rate, of all phases
    for phase in range(up):
        filter_taps[phase::up] = taps[phase][::-1]
    values = sound(501)
    whole = signal.upfirdn(filter_taps, values, up, 1)[reach * up :]
    np.testing.assert_allclose(
        resample(values, rate, new_rate), whole[: 501 * up : down], atol=1e-12
    )
