"""Sounds as samples: read from files, bytes or arrays, several channels averaged to one.

Shape legend: T samples, C channels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, MissingExtraError
from groundup.core.values import StoredFile

__all__ = ["SOUND_KINDS", "Sound", "read_sound"]

SOUND_KINDS = (".wav", ".flac", ".ogg", ".mp3")
_MOST_CHANNELS = 16
# Sizes from here on are written by programs that could not know the length.
_UNKNOWN = 0x7FFFF000


class Sound(NamedTuple):
    """One sound: ``samples`` (T,) float32 from -1 to 1, ``rate`` in samples a second, ``channels``
    it came with."""

    samples: NDArray[np.float32]
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def read_sound(source: Any, name: str = "") -> Sound:
    """Return a sound with its channels averaged.

    Args:
        source: A file's path, the bytes of a file or where they are, or (samples, rate) with
            samples (T,) or (T, C): floating-point numbers from -1 to 1, or whole numbers that fill
            the range of their type.
        name: What to call it in messages, where it is no file.

    Raises:
        DataError: If it cannot be read, has no samples, or one that is no finite number.
        MissingExtraError: If it is a file and soundfile is not installed.
    """
    if isinstance(source, str | Path):
        name = str(source)
        path = Path(source).expanduser()
        if not path.is_file():
            problem = "is a folder; allowed: a file" if path.is_dir() else "no such file"
            raise DataError(
                name, problem, "Correct the path; it is taken relative to the current folder"
            )
        if not path.stat().st_size:
            raise DataError(name, "the file is empty (0 bytes)", "Remove it, or record it again")
        with path.open("rb") as file:
            _refuse_cut_off(file, name)
        # The file's path goes to the library, which reads only what it needs.
        values, rate = _decode(str(path), name)
    elif isinstance(source, StoredFile | bytes | bytearray):
        content = io.BytesIO(source.read() if isinstance(source, StoredFile) else source)
        name = str(source) if isinstance(source, StoredFile) else name or "a sound"
        _refuse_cut_off(content, name)
        values, rate = _decode(content, name)
    else:
        name = name or "a sound"
        values, rate = _check_array(source, name)
    # A file of a header alone can be read, but has no length to divide by.
    if not values.size:
        raise DataError(
            name, "the sound is empty: it holds no samples", "Remove it, or record it again"
        )
    samples = values.mean(1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(samples).all():
        at = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise DataError(
            name, f"sample {at} is no finite number", "Remove the sound, or write it again"
        )
    return Sound(samples, rate, values.shape[1])


def _refuse_cut_off(file: BinaryIO, name: str) -> None:
    """Raise an error for a .wav file that ends before its samples do; decoders pass that over.

    Args:
        file: The file, which is left at its beginning.
        name: What it is called in the error.

    Raises:
        DataError: Naming how many bytes there are, and how many there should be.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        while len(chunk := file.read(8)) == 8:
            start = file.tell()
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data" and end - start < size < _UNKNOWN:
                problem = (
                    f"is cut off: it holds {end - start:,} of the {size:,} bytes of sound that its"
                    " header states"
                )
                raise DataError(name, problem, "Remove it, or fetch it again")
            # A chunk of an odd size is followed by a byte that belongs to none.
            file.seek(start + size + size % 2)
    file.seek(0)


def _decode(source: str | io.BytesIO, name: str) -> tuple[NDArray[np.float32], int]:
    try:
        import soundfile
    except (ImportError, OSError):
        # OSError: the library in C that it needs is missing.
        raise MissingExtraError("soundfile", "classic") from None
    try:
        values, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        problem = f"cannot be read as sound: {str(error).partition(': ')[2].rstrip('. ') or error}"
        raise DataError(
            name, problem, f"Check the file; read are {', '.join(SOUND_KINDS)} and other kinds"
        ) from None
    return values, int(rate)


def _check_array(source: Any, name: str) -> tuple[NDArray[Any], int]:
    """Return (T, C) and the rate of what was given as an array."""
    if (
        not isinstance(source, tuple | list)
        or len(source) != 2
        or not isinstance(source[1], int | float | np.number)
    ):
        problem = (
            f"is {type(source).__name__}; allowed: a path, the bytes of a file, or (samples, rate)"
        )
        raise DataError(name, problem, "Give one of these")
    values = np.asarray(source[0])
    rate = source[1]
    if not (rate >= 1 and float(rate).is_integer()):
        raise DataError(
            name,
            f"the sample rate is {rate}; allowed: 1 or more, in samples a second",
            "Correct it",
        )
    if values.dtype.kind not in "iuf" or values.ndim not in (1, 2):
        problem = (
            f"the samples have shape {values.shape} and type {values.dtype}; allowed: numbers (T,)"
            " or (T, C)"
        )
        raise DataError(name, problem, "Give another array")
    if values.ndim == 2 and values.shape[1] > _MOST_CHANNELS:
        problem = (
            f"the samples have shape {values.shape}, which says {values.shape[1]} channels;"
            " allowed: (T, C)"
        )
        raise DataError(name, problem, "Transpose the array")
    half = float(2 ** (8 * values.dtype.itemsize - 1))
    if values.dtype.kind == "i":
        values = values.astype(np.float64) / half
    elif values.dtype.kind == "u":  # silence is in the middle of the range
        values = (values.astype(np.float64) - half) / half
    return values[:, None] if values.ndim == 1 else values, int(rate)
