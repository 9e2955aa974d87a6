"""Sounds: read from files, bytes and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from groundup.media.audio import SoundsSeen, read_sound


def tone(hz: float, rate: int = 8000, seconds: float = 0.25) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, samples: np.ndarray[Any, Any], rate: int = 8000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


# ------------------------------------------------------------------------------------------ reading
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_files_and_bytes_are_read_alike(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"声音.{kind}", tone(440, 16000), 16000)
    from_path, from_bytes = read_sound(path), read_sound(path.read_bytes())
    assert (from_path.rate, from_path.channels) == (16000, 1)
    assert from_path.seconds == pytest.approx(0.25, abs=0.1)  # mp3 pads
    np.testing.assert_array_equal(from_path.samples, from_bytes.samples)


def test_channels_are_averaged_and_whole_numbers_scaled(tmp_path: Path) -> None:
    left, right = tone(300), tone(500)
    stereo = read_sound(write(tmp_path / "a.wav", np.stack([left, right], 1)))
    assert stereo.channels == 2
    np.testing.assert_allclose(stereo.samples, (left + right) / 2, atol=1e-4)
    np.testing.assert_allclose(read_sound((left, 8000)).samples, left, atol=1e-7)
    for kind in (np.int16, np.int32, np.uint8):
        half = 2 ** (8 * np.dtype(kind).itemsize - 1)
        numbers = np.round(left * (half - 1)) + (half if kind is np.uint8 else 0)
        np.testing.assert_allclose(
            read_sound((numbers.astype(kind), 8000)).samples, left, atol=0.02
        )


@pytest.mark.parametrize(("samples", "note"), [(159, ["1 shorter than 20 ms"]), (160, [])])
def test_sounds_that_are_hardly_there_are_counted(samples: int, note: list[str]) -> None:
    seen = SoundsSeen(8000)
    for number in (samples, 2000):
        seen.add(read_sound((tone(440)[:number], 8000)))
    assert seen.notes() == [f"of 2 sounds {each}" for each in note]
