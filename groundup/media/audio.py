"""Sounds as samples: read from files, bytes or arrays, several channels averaged to one.

Shape legend: T samples, C channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import DataError, MissingExtraError
from groundup.core.settings import as_path
from groundup.core.values import StoredFile

__all__ = [
    "SOUND_KINDS",
    "Sound",
    "SoundHeader",
    "SoundPart",
    "SoundScan",
    "SoundsSeen",
    "header_of",
    "read_sound",
    "resampled",
    "scan_sound",
    "seconds_of",
]

# What libsndfile opens, the usual ones first.
_USUAL = (".wav", ".flac", ".ogg", ".mp3")
_RARE = (".opus", ".oga", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".wave", ".voc")
SOUND_KINDS = _USUAL + _RARE
_MOST_CHANNELS = 16
# Of the loudest there can be: quieter than the last of 16 bits is silence, and where more than a
# thousandth of the samples is at the limit, it was louder than what was recorded.
_SHORT = 0.02  # seconds
_SILENT = 2.0**-16
_FULL = 0.9999
_CLIPPED = 0.001
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


class SoundScan(NamedTuple):
    """What reading all of a sound found; ``digest`` is a hash of its samples and rate."""

    seconds: float
    rate: int
    channels: int
    digest: str


class SoundHeader(NamedTuple):
    """What the header of a file says of its sound: how long it is, samples a second, channels."""

    seconds: float
    rate: int
    channels: int


@dataclass(frozen=True)
class SoundPart(StoredFile):
    """A part of a recording, such as one of the utterances of a meeting: only it is read.

    Attributes:
        path: The recording.
        begin: Where the part begins, in seconds.
        end: Where it ends.
    """

    path: Path
    begin: float
    end: float

    def __str__(self) -> str:
        return f"{self.path} from {self.begin:g} to {self.end:g} s"

    def read(self) -> bytes:
        """Return the part as a WAV file.

        Raises:
            DataError: If the recording cannot be read, or ends before it.
        """
        _open(self.path, "")
        with _reading(str(self)):
            import soundfile

            with soundfile.SoundFile(str(self.path)) as file:
                rate = int(file.samplerate)
                first = round(self.begin * rate)
                # Times in lists are rounded, to a tenth of a second by some.
                if self.end * rate > file.frames + rate / 10 or first >= file.frames:
                    seconds = f"the recording ends at {file.frames / rate:g} s"
                    raise DataError(str(self), seconds, "Correct the times")
                file.seek(first)
                values = file.read(round(self.end * rate) - first, dtype="float32", always_2d=True)
            content = io.BytesIO()
            soundfile.write(content, values, rate, format="WAV", subtype="FLOAT")
        return content.getvalue()


def resampled(rate: int, new_rate: int) -> str:
    """Return what is said of sounds that were recorded at another rate."""
    return f"brought from {rate:,} Hz to {new_rate:,}"


class SoundsSeen:
    """What there is to say of sounds that were read: which were changed, and which look like
    mistakes.

    Args:
        rate: The sample rate that they are brought to.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.total = 0
        self._found: Counter[str] = Counter()

    def add_header(self, about: SoundHeader) -> None:
        """Count a sound by what its header says alone."""
        self.total += 1
        if about.rate != self.rate:
            self._found[resampled(about.rate, self.rate)] += 1
        if about.channels > 1:
            self._found["with several channels, which are averaged"] += 1
        if about.seconds < _SHORT:
            self._found["shorter than 20 ms"] += 1

    def add(self, sound: Sound) -> None:
        """Count a sound."""
        self.add_header(SoundHeader(sound.seconds, sound.rate, sound.channels))
        loudness = np.abs(sound.samples)
        loudest = float(loudness.max())
        if loudest < _SILENT:
            self._found["silent"] += 1
        elif np.count_nonzero(loudness >= _FULL) > _CLIPPED * len(loudness):
            self._found["clipped: many samples are as loud as can be"] += 1

    def notes(self) -> list[str]:
        """Return a line with what was found, or none."""
        parts = [f"{count:,} {what}" for what, count in self._found.most_common()]
        return [f"of {self.total:,} sounds {'; '.join(parts)}"] if parts else []


def header_of(source: Any, name: str = "") -> SoundHeader:
    """Return how long a sound lasts, its rate and channels; of a file its header says so.

    Raises:
        DataError: If it cannot be read.
    """
    if isinstance(source, str | Path) and Path(source).is_file():
        with contextlib.suppress(Exception):  # reading it says what is wrong
            import soundfile

            about = soundfile.info(str(source))
            return SoundHeader(float(about.duration), int(about.samplerate), int(about.channels))
    sound = read_sound(source, name)
    return SoundHeader(sound.seconds, sound.rate, sound.channels)


def seconds_of(source: Any, name: str = "") -> float:
    """Return how long a sound lasts; of a file its header says so.

    Raises:
        DataError: If it cannot be read.
    """
    return header_of(source, name).seconds


def read_sound(source: Any, name: str = "", part: tuple[int, int] | None = None) -> Sound:
    """Return a sound with its channels averaged.

    Args:
        source: A file's path, the bytes of a file or where they are, or (samples, rate) with
            samples (T,) or (T, C): floating-point numbers from -1 to 1, or whole numbers that fill
            the range of their type.
        name: What to call it in messages, where it is no file.
        part: Where to begin and to end, in samples; None: all of it. Of a file no more is read.

    Raises:
        DataError: If it cannot be read, has no samples, or one that is no finite number.
        MissingExtraError: If it is a file and soundfile is not installed.
    """
    if isinstance(source, str | Path | StoredFile | bytes | bytearray):
        opened, name = _open(source, name)
        values, rate = _decode(opened, name, part)
    else:
        name = name or "a sound"
        values, rate = _check_array(source, name)
        values = values if part is None else values[slice(*part)]
    if not values.size:
        raise _empty(name)
    samples = _average(values, name, 0 if part is None else part[0])
    return Sound(samples, rate, values.shape[1])


def scan_sound(source: Any, name: str = "") -> SoundScan:
    """Return what is known of a file's sound once all of it has been read, a minute at a time: a
    recording of hours fits into memory too.

    Args:
        source: A file's path, the bytes of a file or where they are.
        name: What to call it in messages, where it is no file.

    Raises:
        DataError: As ``read_sound``.
    """
    opened, name = _open(source, name)
    with _reading(name):
        import soundfile

        about = soundfile.info(opened)
    if isinstance(opened, io.BytesIO):
        opened.seek(0)
    rate = int(about.samplerate)
    digest = hashlib.blake2b(digest_size=16, key=str(rate).encode())
    count = 0
    with _reading(name):
        for block in soundfile.blocks(opened, 60 * rate, dtype="float32", always_2d=True):
            samples = _average(block, name, count)
            digest.update(samples.tobytes())
            count += len(samples)
    if not count:
        raise _empty(name)
    return SoundScan(count / rate, rate, int(about.channels), digest.hexdigest())


def _open(source: Any, name: str) -> tuple[str | io.BytesIO, str]:
    """Return what the library reads, a path or bytes, and what it is called in errors."""
    if isinstance(source, str | Path):
        name = str(source)
        path = as_path(source)
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
        return str(path), name
    content = io.BytesIO(source.read() if isinstance(source, StoredFile) else source)
    name = str(source) if isinstance(source, StoredFile) else name or "a sound"
    _refuse_cut_off(content, name)
    return content, name


def _average(values: NDArray[Any], name: str, first: int = 0) -> NDArray[np.float32]:
    """Return (T,) the mean of the channels (T, C), all finite; ``first`` samples came before."""
    samples: NDArray[np.float32] = values.mean(1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(samples).all():
        at = first + int(np.flatnonzero(~np.isfinite(samples))[0])
        raise DataError(
            name, f"sample {at} is no finite number", "Remove the sound, or write it again"
        )
    return samples


def _empty(name: str) -> DataError:
    # A file of a header alone can be read, but has no length to divide by.
    problem = "the sound is empty: it holds no samples"
    return DataError(name, problem, "Remove it, or record it again")


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
                raise DataError(
                    name,
                    f"is cut off: it holds {end - start:,} of the {size:,} bytes of sound that its"
                    " header states",
                    "Remove it, or fetch it again",
                )
            # A chunk of an odd size is followed by a byte that belongs to none.
            file.seek(start + size + size % 2)
    file.seek(0)


def _decode(
    source: str | io.BytesIO, name: str, part: tuple[int, int] | None
) -> tuple[NDArray[np.float32], int]:
    # To the end, where no part is asked for.
    begin, end = part or (0, None)
    with _reading(name):
        import soundfile

        values, rate = soundfile.read(
            source, start=begin, stop=end, dtype="float32", always_2d=True
        )
    return values, int(rate)


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what goes wrong in the library into errors that name the sound."""
    try:
        import soundfile
    except (ImportError, OSError):
        # OSError: the library in C that it needs is missing.
        raise MissingExtraError("soundfile", "classic") from None
    try:
        yield
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        raise DataError(
            name,
            f"cannot be read as sound: {str(error).partition(': ')[2].rstrip('. ') or error}",
            f"Check the file; read are {', '.join(SOUND_KINDS)} and other kinds",
        ) from None


def _check_array(source: Any, name: str) -> tuple[NDArray[Any], int]:
    """Return (T, C) and the rate of what was given as an array."""
    if (
        not isinstance(source, tuple | list)
        or len(source) != 2
        or not isinstance(source[1], int | float | np.number)
    ):
        raise DataError(
            name,
            f"is {type(source).__name__}; allowed: a path, the bytes of a file, or (samples, rate)",
            "Give one of these",
        )
    values = np.asarray(source[0])
    rate = source[1]
    if not (rate >= 1 and float(rate).is_integer()):
        raise DataError(
            name,
            f"the sample rate is {rate}; allowed: 1 or more, in samples a second",
            "Correct it",
        )
    if values.dtype.kind not in "iuf" or values.ndim not in (1, 2):
        raise DataError(
            name,
            f"the samples have shape {values.shape} and type {values.dtype}; allowed: numbers (T,)"
            " or (T, C)",
            "Give another array",
        )
    if values.ndim == 2 and values.shape[1] > _MOST_CHANNELS:
        raise DataError(
            name,
            f"the samples have shape {values.shape}, which says {values.shape[1]} channels;"
            " allowed: (T, C)",
            "Transpose the array",
        )
    half = float(2 ** (8 * values.dtype.itemsize - 1))
    if values.dtype.kind == "i":
        values = values.astype(np.float64) / half
    elif values.dtype.kind == "u":  # silence is in the middle of the range
        values = (values.astype(np.float64) - half) / half
    return values[:, None] if values.ndim == 1 else values, int(rate)
