"""Sounds as features over time: mel spectrogram, or cepstral coefficients made of them, at one
sample rate.

Shape legend: N sounds, T frames, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.processors import InputProcessor
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.core.values import Batch, CutInputs, Example
from groundup.media.audio import SoundsSeen, read_sound, seconds_of
from groundup.media.resampling import resample
from groundup.processors.saved_files import saved_settings, write_json
from groundup.processors.sequences import mean_and_spread, pad
from groundup.processors.sound_frames import OVER_ALL, SoundFrames

__all__ = ["AudioConfig", "AudioProcessor"]


@processor("audio")
class AudioConfig(SoundFrames):
    """Frames of short-time spectrogram, as recognisers of speech and sounds read them."""

    features: Literal["mfcc", "log_mel"] = setting(
        "mfcc", "Cepstral coefficients, or logarithms of mel band energies"
    )
    max_seconds: float | None = setting(None, "Longer sounds are cut to this many seconds", gt=0)

    def frames(
        self,
        source: Any,
        name: str = "",
        cut: CutInputs | None = None,
        seen: SoundsSeen | None = None,
    ) -> NDArray[np.float64]:
        """Return (T, F), not normalised over the training split, of what ``read_sound`` reads,
        which is noted in ``cut`` and ``seen``."""
        sound = read_sound(source, name)
        if seen is not None:
            seen.add(sound)
        kept = sound.samples
        if self.max_seconds is not None:
            if cut is not None:
                limit = f"max_seconds {self.max_seconds:g}"
                cut.add("sounds", "seconds", limit, [sound.seconds], self.max_seconds)
            # Cut first: what is not kept need not be brought to another rate.
            kept = kept[: max(1, round(self.max_seconds * sound.rate))]
        samples = resample(kept, sound.rate, self.sample_rate)
        return self.frames_of(samples)

    def fit(self, texts: Callable[[], Iterator[Example]]) -> AudioProcessor:
        """Return the processor with the means and scales of the training examples.

        Raises:
            DataError: If there are none, or one cannot be read.
        """
        # The other ways need no statistics, so the sounds need not be read.
        cut = CutInputs()
        seen = SoundsSeen(self.sample_rate)
        mean = [0.0] * self.width
        scale = [1.0] * self.width
        if self.normalise in OVER_ALL:
            sounds = (
                self.frames(example.inputs, example.origin or example.name, cut, seen)
                for example in texts()
            )
            mean, scale = mean_and_spread(sounds, "recipe.processor")
        elif self.max_seconds is not None:
            lengths = [seconds_of(example.inputs, example.origin) for example in texts()]
            limit = f"max_seconds {self.max_seconds:g}"
            cut.add("sounds", "seconds", limit, lengths, self.max_seconds)
        return AudioProcessor(self, mean, scale, [*seen.notes(), *cut.notes()])

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
            return AudioProcessor(config, mean, scale, saved.get("notes", ()))


class AudioProcessor(InputProcessor):
    """Turns sounds into normalised features, padded to the longest.

    Args:
        config: How features are computed.
        mean: (F,) what is taken off each.
        scale: (F,) what each is then divided by.
    """

    def __init__(
        self,
        config: AudioConfig,
        mean: Sequence[float],
        scale: Sequence[float],
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = tuple(notes)
        self.cut = CutInputs()
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
        frames = self.config.frames
        found = [
            # In float64 to the end, as the statistics were computed.
            ((frames(each, f"sound {number}", self.cut) - mean) / scale).astype(np.float32)
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
            "notes": self.notes,
        }
        write_json(folder / "processor.json", {"name": "audio", **saved})
