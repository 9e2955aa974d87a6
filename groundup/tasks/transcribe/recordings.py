"""Sounds of any length, read a window at a time.

Legend: S samples, T frames, F features, U units: the frames of a model's output, each of some
    frames of its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.contracts.speech import ReadsSpeech
from groundup.core.errors import DataError
from groundup.media.audio import Sound, header_of, read_sound, resampled
from groundup.media.resampling import resample

__all__ = ["Recording", "Window", "loud_units", "pauses", "windows"]

_LOUD_SECONDS = 0.03
# Around what is loud: the ends of words are quiet.
_AROUND_SECONDS = 0.5
_PAUSE_SECONDS = 0.2


# Told apart by what they are, not by what is in them: arrays compare number by number.
@dataclass(frozen=True, eq=False)
class Window:
    """A part of a recording.

    Attributes:
        content: Samples (S,) at the processor's rate, or features (T, F).
        begin_s: Where it begins, in seconds.
        first: Of its units, the first that counts: those before are the window's before it.
        end: The unit after the last that counts; None: all that follow.
        last: Whether the recording ends with it.
    """

    content: NDArray[Any]
    begin_s: float
    first: int = 0
    end: int | None = None
    last: bool = True

    @property
    def is_sound(self) -> bool:
        """Whether it holds samples, not features."""
        return self.content.ndim == 1


class Recording:
    """A sound, of which parts are read when they are needed; a file is never wholly in memory.

    Args:
        source: What ``read_sound`` reads; or features (T, F).
        processor: What reads the parts.
        name: What it is called in messages, where it is no file.

    Raises:
        DataError: If it cannot be read.
    """

    def __init__(self, source: Any, processor: ReadsSpeech, name: str) -> None:
        self._processor = processor
        self._features: NDArray[Any] | None = None
        self._sound: Sound | None = None
        self._source = source
        self.target_rate = processor.sample_rate
        self.name = str(source) if isinstance(source, str | Path) else name
        if isinstance(source, np.ndarray) and source.ndim == 2:
            # Features that were computed elsewhere: of these nothing is known but their number.
            self._features = source
            self.seconds = len(source) * processor.frame_seconds
            return
        if isinstance(source, str | Path):
            about = header_of(source, name)
            self.rate = about.rate
            self.seconds = about.seconds
        else:
            # Bytes and arrays are in memory anyway: they are decoded once.
            self._sound = read_sound(source, name)
            self.rate = self._sound.rate
            self.seconds = self._sound.seconds
        if self.rate != processor.sample_rate and processor.cut is not None:
            what = f"sounds are {resampled(self.rate, processor.sample_rate)}"
            processor.cut.count(what, 1, self.name)

    def read(self, begin_s: float, end_s: float) -> NDArray[Any]:
        """Return samples (S,) at the processor's rate, or features (T, F), of a part."""
        if self._features is not None:
            step = self._processor.frame_seconds
            return self._features[round(begin_s / step) : round(end_s / step)]
        part = (round(begin_s * self.rate), max(1, round(end_s * self.rate)))
        if self._sound is not None:
            samples: NDArray[Any] = self._sound.samples[slice(*part)]
        elif begin_s == 0.0 and end_s >= self.seconds:
            # What a header says of a length may be a few samples short.
            samples = read_sound(self._source, self.name).samples
        else:
            samples = read_sound(self._source, self.name, part).samples
        return resample(samples, self.rate, self._processor.sample_rate).astype(np.float32)


def windows(
    recording: Recording, unit_seconds: float, window_seconds: float, overlap_seconds: float
) -> Iterator[Window]:
    """Yield windows that overlap; of two that do, each counts up to the middle of the overlap.

    Where a word is cut by the end of one window, it is whole in the other, in which its unit
    counts: it is neither lost nor read twice. All begin at whole units, so that every unit is of
    the same part of the sound as in one pass over all of it.
    """
    # In whole units, and half of the overlap too: its middle is then between two units.
    size = max(4, round(window_seconds / unit_seconds))
    half = max(1, round(overlap_seconds / unit_seconds / 2))
    step = max(1, size - 2 * half)
    number = 0
    while True:
        begin = number * step * unit_seconds
        end = begin + size * unit_seconds
        last = end >= recording.seconds
        content = recording.read(begin, min(end, recording.seconds))
        # Nothing is before the first window: it counts from its beginning.
        first = half if number else 0
        yield Window(content, begin, first, None if last else half + step, last)
        if last:
            return
        number += 1


def pauses(recording: Recording, window_seconds: float, overlap_seconds: float) -> Iterator[Window]:
    """Yield windows one behind the other, each cut where the sound is quietest in the last
    ``overlap_seconds``: for models that write a whole text about a window, whose words cannot be
    counted by the frame.

    Raises:
        DataError: If there are features in place of samples, of which nothing says how loud.
    """
    begin = 0.0
    while True:
        end = begin + window_seconds
        last = end >= recording.seconds
        content = recording.read(begin, min(end, recording.seconds))
        if last:
            yield Window(content, begin)
            return
        if content.ndim != 1:
            problem = f"has {recording.seconds:.0f} seconds of features, but a window has"
            problem += f" {window_seconds:g}"
            remedy = "Give sounds, which are cut at pauses, or shorter features"
            raise DataError(recording.name, problem, remedy)
        rate = recording.target_rate
        cut = _quietest(content, rate, overlap_seconds)
        yield Window(content[: round(cut * rate)], begin, last=False)
        begin += cut


def _quietest(samples: NDArray[Any], rate: int, within_seconds: float) -> float:
    """Return the middle of the quietest stretch near the end, in seconds."""
    size = max(1, round(_LOUD_SECONDS * rate))
    energy = _energies(samples, size)
    # Long enough for a pause between words: within one, a stop such as a "t" is quiet for a tenth.
    across = max(1, round(_PAUSE_SECONDS * rate / size))
    first = max(0, len(energy) - round(within_seconds * rate / size))
    sums = np.convolve(energy[first:], np.ones(across), "valid")
    if not len(sums):
        return len(samples) / rate
    # Of equally quiet ones, as in digital silence, the one in the middle.
    quiet = np.flatnonzero(sums <= sums.min() * (1 + 1e-9))
    place = first + int(quiet[len(quiet) // 2]) + across / 2
    return max(place * size, float(size)) / rate


def _energies(samples: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Return the mean square of each ``size`` samples, those at the end filled up with zeros."""
    # The last few samples count too, although they fill no stretch.
    count = -(-len(samples) // size)
    padded = np.zeros(count * size)
    padded[: len(samples)] = samples
    mean: NDArray[np.float64] = (padded.reshape(count, size) ** 2).mean(1)
    return mean


def loud_units(
    samples: NDArray[Any], rate: int, unit_seconds: float, silence_db: float, units: int
) -> NDArray[np.bool_]:
    """Return (U,) which units are near something that can be heard.

    Args:
        samples: (S,) from -1 to 1.
        rate: Of them.
        unit_seconds: How long a unit is.
        silence_db: What is no louder in any 30 milliseconds is silence: decibels below a square
            wave of full scale.
        units: U.
    """
    size = max(1, round(_LOUD_SECONDS * rate))
    loud = _energies(samples, size) > 10 ** (silence_db / 10)
    around = round(_AROUND_SECONDS * rate / size)
    spread = np.convolve(loud, np.ones(2 * around + 1), "full")[around : around + len(loud)] > 0.5
    middles = (np.arange(units) + 0.5) * unit_seconds * rate / size
    return spread[np.minimum(middles.astype(np.int64), len(spread) - 1)]
