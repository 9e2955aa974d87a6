"""Sounds as features over time: mel spectrogram, or cepstral coefficients made of them, at one
sample rate.

Shape legend: N sounds, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.processors import InputProcessor, ProcessorConfig
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, Example
from groundup.media.audio import read_sound
from groundup.processors import spectrogram
from groundup.processors.saved_files import saved_settings, write_json
from groundup.processors.sequences import mean_and_spread, pad

__all__ = ["AudioConfig", "AudioProcessor"]


@processor("audio")
class AudioConfig(ProcessorConfig):
    """Frames of short-time spectrogram, as recognisers of speech and sounds read them."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"
    features: Literal["mfcc", "log_mel"] = setting(
        "mfcc", "Cepstral coefficients, or logarithms of mel band energies"
    )
    sample_rate: int = setting(
        16000, "Samples a second that every sound is brought to", ge=1000, le=192000
    )
    window_ms: float = setting(25.0, "Length of a frame, milliseconds", gt=0, le=1000)
    hop_ms: float = setting(
        10.0, "From the start of a frame to that of the next, milliseconds", gt=0, le=1000
    )
    mel_bands: int = setting(40, "Mel bands", ge=2, le=512)
    lowest_hz: float = setting(20.0, "Where the first mel band begins, hertz", ge=0)
    highest_hz: float | None = setting(
        None, "Where the last mel band ends, hertz; silent: half the sample rate", gt=0
    )
    preemphasis: float = setting(
        0.97, "Share of the sample before that is taken off each sample", ge=0, lt=1
    )
    coefficients: int = setting(
        13,
        "Cepstral coefficients, from 0 on; 0 is the loudness",
        ge=1,
        applies_when={"features": ("mfcc",)},
    )
    deltas: Literal[0, 1, 2] = setting(
        0, "1: the features' slopes over time as well; 2: the slopes' slopes too"
    )
    normalise: Literal["mean_variance", "each_sound", "none"] = setting(
        "mean_variance",
        "Each feature has mean 0 and variance 1: mean_variance over all training frames, each_sound"
        " over each sound's",
    )
    max_seconds: float | None = setting(None, "Longer sounds are cut to this many seconds", gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> AudioConfig:
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
        """The mel filters, (frequencies, mel_bands)."""
        size = spectrogram.fft_size(self.window)
        return spectrogram.mel_filters(
            self.mel_bands, size, self.sample_rate, self.lowest_hz, self.highest
        )

    @property
    def width(self) -> int:
        """Features of a frame, F."""
        own = {"mfcc": self.coefficients, "log_mel": self.mel_bands}[self.features]
        return own * (1 + self.deltas)

    def frames(self, source: Any, name: str = "") -> NDArray[np.float64]:
        """Return (T, F), not normalised over the training split, of what ``read_sound`` reads."""
        sound = read_sound(source, name)
        kept = sound.samples
        if self.max_seconds is not None:
            # Cut first: what is not kept need not be brought to another rate.
            kept = kept[: max(1, round(self.max_seconds * sound.rate))]
        samples = spectrogram.resample(kept, sound.rate, self.sample_rate)
        found = spectrogram.log_mel(samples, self.window, self.hop, self.preemphasis, self.filters)
        if self.features == "mfcc":
            found = found @ spectrogram.cosine_transform(self.mel_bands, self.coefficients)
        # Slopes of slopes too, each from the one before.
        parts = [found]
        for _ in range(self.deltas):
            parts.append(spectrogram.differences(parts[-1]))
        features = np.concatenate(parts, 1)
        if self.normalise == "each_sound":
            mean, scale = mean_and_spread([features])
            features = (features - np.asarray(mean)) / np.asarray(scale)
        return features

    def fit(self, texts: Callable[[], Iterator[Example]]) -> AudioProcessor:
        """Return the processor with the means and scales of the training examples.

        Raises:
            DataError: If there are none, or one cannot be read.
        """
        # The other ways need no statistics, so the sounds need not be read.
        if self.normalise == "mean_variance":
            sounds = (
                self.frames(example.inputs, example.origin or example.name) for example in texts()
            )
            return AudioProcessor(self, *mean_and_spread(sounds, "recipe.processor"))
        return AudioProcessor(self, [0.0] * self.width, [1.0] * self.width)

    @classmethod
    def load(cls, folder: Path) -> AudioProcessor:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is missing or damaged.
        """
        with saved_settings(folder) as saved:
            mean = [float(value) for value in saved["mean"]]
            scale = [float(value) for value in saved["scale"]]
            config = cls(**saved["settings"])
            # One number alone would be taken for every feature without a word.
            if not len(mean) == len(scale) == config.width:
                raise ValueError(f"{len(mean)} means of {config.width} features")
            return AudioProcessor(config, mean, scale)


class AudioProcessor(InputProcessor):
    """Turns sounds into normalised features, padded to the longest.

    Args:
        config: How features are computed.
        mean: (F,) what is taken off each.
        scale: (F,) what each is then divided by.
    """

    def __init__(self, config: AudioConfig, mean: Sequence[float], scale: Sequence[float]) -> None:
        self.config = config
        self.mean = tuple(mean)
        self.scale = tuple(scale)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(0, F): the number of frames varies."""
        return (0, self.config.width)

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, T, F) float32 and ``lengths`` (N,) of sounds: paths, bytes, or
        (samples, rate).

        Raises:
            DataError: If a sound cannot be read; the message names the file, or the sound's number.
        """
        mean = np.asarray(self.mean)
        scale = np.asarray(self.scale)
        found = [
            # In float64 to the end, as the statistics were computed.
            ((self.config.frames(each, f"sound {number}") - mean) / scale).astype(np.float32)
            for number, each in enumerate(inputs)
        ]
        return pad(found, self.config.width)

    def save(self, folder: Path) -> None:
        """Write processor.json."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {
            "settings": self.config.model_dump(mode="json"),
            "mean": self.mean,
            "scale": self.scale,
        }
        write_json(folder / "processor.json", {"name": "audio", **saved})
