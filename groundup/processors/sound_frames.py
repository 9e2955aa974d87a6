"""What every processor of sounds can be set to, and the features that follow from it.

Shape legend: T samples, N frames, K frequencies, M mel bands, F features.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.processors import ProcessorConfig
from groundup.core.settings import setting
from groundup.processors import spectrogram
from groundup.processors.sequences import mean_and_spread

__all__ = ["OVER_ALL", "SoundFrames"]

OVER_ALL = ("mean_variance", "each_mean")
"""Ways to normalise by what the training frames are, of which all are read first."""

# Whisper's features have one form, and features that are given have none.
_OWN: dict[str, tuple[Any, ...]] = {"features": ("mfcc", "log_mel")}


class SoundFrames(ProcessorConfig, ABC):
    """Settings of a short-time spectrogram, or of cepstral coefficients made of it."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    features: Literal["mfcc", "log_mel", "whisper", "given"] = setting(
        "mfcc", "Cepstral coefficients, or logarithms of mel band energies"
    )
    sample_rate: int = setting(
        16000, "Samples a second that every sound is brought to", ge=1000, le=192000
    )
    window_ms: float = setting(
        25.0, "Length of a frame, milliseconds", gt=0, le=1000, applies_when=_OWN
    )
    hop_ms: float = setting(
        10.0,
        "From the start of a frame to that of the next, milliseconds",
        gt=0,
        le=1000,
        applies_when=_OWN,
    )
    mel_bands: int = setting(40, "Mel bands", ge=2, le=512)
    lowest_hz: float = setting(
        20.0, "Where the first mel band begins, hertz", ge=0, applies_when=_OWN
    )
    highest_hz: float | None = setting(
        None,
        "Where the last mel band ends, hertz; silent: half the sample rate",
        gt=0,
        applies_when=_OWN,
    )
    preemphasis: float = setting(
        0.97,
        "Share of the sample before that is taken off each sample",
        ge=0,
        lt=1,
        applies_when=_OWN,
    )
    coefficients: int = setting(
        13,
        "Cepstral coefficients, from 0 on; 0 is the loudness",
        ge=1,
        applies_when={"features": ("mfcc",)},
    )
    deltas: Literal[0, 1, 2] = setting(
        0,
        "1: the features' slopes over time as well; 2: the slopes' slopes too",
        applies_when=_OWN,
    )
    normalise: Literal["mean_variance", "each_sound", "each_mean", "none"] = setting(
        "mean_variance",
        "Each feature has mean 0 and variance 1: mean_variance over all training frames, each_sound"
        " over each sound's; each_mean: the mean of each sound's, the variance over all",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SoundFrames:
        # The others have no bands of their own to be wrong.
        if self.features not in _OWN["features"]:
            return self
        highest = self.highest
        # Above half its rate a sound holds no frequency.
        if highest > self.sample_rate / 2:
            raise ValueError(
                f"highest_hz {highest} is above half the sample rate {self.sample_rate}. Lower it"
            )
        if self.lowest_hz >= highest:
            raise ValueError(
                f"lowest_hz {self.lowest_hz} is not below the highest, {highest}. Lower it"
            )
        if self.hop_ms > self.window_ms:
            raise ValueError(
                f"hop_ms {self.hop_ms} is above window_ms {self.window_ms}, which skips sound."
                " Lower it"
            )
        if self.window < 2 or self.hop < 1:
            raise ValueError(
                "a frame has fewer than 2 samples. Raise window_ms, hop_ms or sample_rate"
            )
        if self.features == "mfcc" and self.coefficients > self.mel_bands:
            raise ValueError(
                f"coefficients {self.coefficients} is above mel_bands {self.mel_bands}. Lower it"
            )
        # A band between two frequencies of the spectrum would hold silence whatever the sound.
        empty = np.flatnonzero(self.filters.sum(0) == 0)
        if len(empty):
            problem = (
                f"mel band {empty[0] + 1} of {self.mel_bands} is narrower than frames of"
                f" {self.window_ms} ms tell"
            )
            raise ValueError(f"{problem} apart. Lower mel_bands or raise window_ms")
        return self

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def highest(self) -> float:
        """Where the last mel band ends, in hertz."""
        return self.sample_rate / 2 if self.highest_hz is None else self.highest_hz

    @property
    def filters(self) -> NDArray[np.float64]:
        """The mel filters, (K, M)."""
        size = spectrogram.fft_size(self.window)
        return spectrogram.mel_filters(
            self.mel_bands, size, self.sample_rate, self.lowest_hz, self.highest
        )

    @property
    def width(self) -> int:
        """Features of a frame, F."""
        own = {"mfcc": self.coefficients}.get(self.features, self.mel_bands)
        return own * (1 + self.deltas)

    def frames_of(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Return (N, F) of samples (T,) at the processor's rate, not normalised over the training
        split."""
        found = spectrogram.log_mel(samples, self.window, self.hop, self.preemphasis, self.filters)
        if self.features == "mfcc":
            found = found @ spectrogram.cosine_transform(self.mel_bands, self.coefficients)
        # Slopes of slopes too, each from the one before.
        parts = [found]
        for _ in range(self.deltas):
            parts.append(spectrogram.differences(parts[-1]))
        return self.normalised(np.concatenate(parts, 1))

    def normalised(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, F) normalised by itself, where the settings say so."""
        # A room and a microphone add the same to every frame's logarithms; spreads are speech's.
        if self.normalise == "each_mean":
            centred: NDArray[np.float64] = features - features.mean(0)
            return centred
        if self.normalise != "each_sound":
            return features
        mean, scale = mean_and_spread([features])
        own: NDArray[np.float64] = (features - np.asarray(mean)) / np.asarray(scale)
        return own
