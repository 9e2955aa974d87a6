"""What pictures are scaled by, learned from the training split.

Shape legend: C channels.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import Example
from groundup.media.images import depth_of
from groundup.processors.picture_pixels import Shape

__all__ = [
    "FileSample",
    "PictureSums",
    "as_columns",
    "find_depth",
    "note_conversions",
    "scaling_of",
    "write_scaled",
]

# Files whose headers say whether there may be pictures of 16 bits.
_FIRST = 16

# Picture files that the scale is learned from.
_SAMPLE = 2000


@dataclass
class PictureSums:
    """Sums over all pixels of each channel (C,), in fp64."""

    shape: Shape
    totals: NDArray[np.float64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    pixels: int = 0
    largest: float = 0.0

    def __post_init__(self) -> None:
        self.totals = np.zeros(self.shape[0])
        self.squares = np.zeros(self.shape[0])

    def add(self, picture: NDArray[Any], *, moments: bool) -> None:
        """Take in a picture (C, ...); without ``moments`` only its largest value and its number of
        pixels."""
        flat = picture.reshape(len(picture), -1)
        if moments:
            totals, squares = _sum_moments(flat)
            self.totals += totals
            self.squares += squares
        self.pixels += flat.shape[1]
        self.largest = max(self.largest, float(flat.max()))

    def scaling(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel; a constant one is only shifted."""
        mean = self.totals / self.pixels
        # Rounding can leave a constant channel with a variance just below 0.
        spread = np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0.0))
        return mean.tolist(), np.where(spread > 0, spread, 1.0).tolist()


def _sum_moments(flat: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums over (C, pixels) of the values and of their squares, (C,) each."""
    if flat.dtype != np.uint8:
        values = flat.astype(np.float64)
        return values.sum(1), np.square(values).sum(1)
    # Counting the 256 values there can be is much quicker than converting every pixel.
    grey = np.arange(256.0)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in flat])
    return counts @ grey, counts @ np.square(grey)


class FileSample:
    """The examples whose names have the largest hashes: a sample that does not depend on their
    order."""

    def __init__(self) -> None:
        self._heap: list[tuple[bytes, int, Example]] = []

    def add(self, number: int, example: Example) -> None:
        """Take in an example; ``number`` is its place in the data."""
        entry = (hashlib.blake2b(example.name.encode(), digest_size=8).digest(), number, example)
        if len(self._heap) < _SAMPLE:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        """Yield the sample in the order of the data."""
        for _, number, example in sorted(self._heap, key=lambda entry: entry[1]):
            yield number, example


def scaling_of(
    sums: PictureSums,
    largest: float,
    normalise: str,
    given_mean: Sequence[float] | None,
    given_std: Sequence[float] | None,
) -> tuple[list[float], list[float]]:
    """Return what is taken off each channel, and what it is then divided by.

    Args:
        sums: Of the training pictures.
        largest: The value that is white.
        normalise: As the processor's setting.
        given_mean: As the recipe says, or None.
        given_std: Likewise.

    Raises:
        DataError: If other numbers of channels are given.
    """
    channels = sums.shape[0]
    if normalise == "standard":
        return sums.scaling()
    if given_mean is not None and given_std is not None:
        if len(given_mean) != channels:
            raise DataError(
                "recipe.processor.mean",
                f"has {len(given_mean)} numbers, but the pictures {channels} channels",
                "Give one for each channel, or set channels",
            )
        return [value * largest for value in given_mean], [value * largest for value in given_std]
    return [0.0] * channels, [largest if normalise == "unit" else 1.0] * channels


def find_depth(pictures: Sequence[Any]) -> int:
    """Return how many of 16 bits are used; all are looked at where one of the first has as many."""
    return depth_of(pictures)[0] if depth_of(pictures[:_FIRST])[1] else 16


def note_conversions(seen: Counter[str], total: int, depth: int) -> list[str]:
    if not seen:
        return []
    wide = f", of which {depth} are used" if depth < 16 else ", of which the upper 8 are read"
    parts = [
        f"{count:,} {what}{wide if what == 'of 16 bits' else ''}"
        for what, count in seen.most_common()
    ]
    return [f"pictures: of {total:,} looked at are {'; '.join(parts)}"]


def as_columns(
    mean: Sequence[float], scale: Sequence[float], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Return both as (C, 1, 1), of the type and device of ``like``."""
    # With two more axes they go over rows and columns.
    return like.new_tensor(mean)[:, None, None], like.new_tensor(scale)[:, None, None]


def write_scaled(
    cell: NDArray[np.float32], pixels: NDArray[Any], mean: Tensor, scale: Tensor
) -> None:
    """Write pixels (C, H, W) to their place in a batch, less ``mean`` and divided by ``scale``."""
    # In three passes over one picture, which stays in the cache; one over a batch does not.
    cell[...] = pixels
    cell -= mean.numpy()
    cell /= scale.numpy()
