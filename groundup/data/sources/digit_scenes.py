"""Handwritten digits at random places of a picture, with boxes around them.

Shape legend: H rows, W columns, K digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import model_validator

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.detection import Boxes
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Example, Split
from groundup.data.sources.arrays import Arrays
from groundup.data.stream.in_memory import open_indexed_stream

__all__ = ["DigitScenes"]

_FORMAT = 1  # raise it when other pictures are made of the same settings
_INK = 3.0  # of 16: what is fainter is the edge of a stroke
_TRIES = 20  # places that are tried for a digit before it is left out
_OVERLAP = 0.05  # of a digit's box that another may cover
_Range = tuple[int, int]


@data("digit_scenes")
class DigitScenes(DataSource):
    """Scikit-learn's digits pasted on grounds of light and noise, made from the seed: nothing is
    downloaded.

    Each digit has its own size and brightness; boxes are tight around the ink. No digit that is in
    a held-out picture is in a training picture, however it is pasted.
    """

    pictures: int = setting(800, "pictures to learn from", ge=1, le=100_000)
    held_out: int = setting(200, "pictures held out for validation", ge=0, le=20_000)
    tested: int = setting(200, "pictures that training never looks at", ge=0, le=20_000)
    size: int = setting(64, "height and width of a picture, in pixels", ge=16, le=1024)
    digits: _Range = setting((0, 4), "digits of a picture: the fewest and the most")
    digit_size: _Range = setting((12, 28), "height of a digit in pixels: the least and the most")
    noise: float = setting(0.08, "standard deviation of each pixel's noise; 1 is white", ge=0, le=1)
    seed: int = setting(0, "another seed makes other pictures", ge=0)

    @model_validator(mode="after")
    def _ranges_are_possible(self) -> DigitScenes:
        for name, least in (("digits", 0), ("digit_size", 4)):
            low, high = dict(self)[name]
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; allowed: the smaller one first. Swap")
            if low < least:
                raise ValueError(f"{name} begins with {low}; allowed: {least} or more. Raise it")
        if self.digits[1] < 1:
            raise ValueError("digits is [0, 0], so there is nothing to find. Raise the second")
        if self.digit_size[1] > self.size:
            raise ValueError(
                f"digit_size goes up to {self.digit_size[1]}, but a picture has {self.size} pixels."
                " Lower it, or raise size"
            )
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        counts: dict[Split, int] = {"validation": self.held_out, "test": self.tested}
        return ("train", *(split for split, count in counts.items() if count))

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pictures of a split, (H, W) uint8, with their boxes.

        Raises:
            DataError: If the split has none.
        """
        counts = {"train": self.pictures, "validation": self.held_out, "test": self.tested}
        if not counts[split]:
            name = {"validation": "held_out"}.get(split, "tested")
            where = f"data digit_scenes ({split})"
            raise DataError(where, "no pictures are held out for it", f"Set data.{name}")
        return [self._paint(split, number) for number in range(1, counts[split] + 1)]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def contents(self) -> Mapping[str, Path | str]:
        """Return the settings, of which all follows."""
        return {"digit scenes": f"version {_FORMAT}, {self.model_dump_json()}"}

    def card(self, cache: Path) -> dict[str, Any]:
        """Return how many pictures and digits there are."""
        card: dict[str, Any] = {
            "source": "scikit-learn's digits, pasted by the seed",
            "licence": "CC BY 4.0 (Alpaydin and Kaynak, 1998)",
        }
        for split in self.splits():
            found = self.examples(split, cache)
            card[split] = {
                "pictures": len(found),
                "without a digit": sum(not each.target.labels for each in found),
                "digits": sum(len(each.target.labels) for each in found),
            }
        return card

    # ------------------------------------------------------------------------------------- painting
    def _paint(self, split: Split, number: int) -> Example:
        random = np.random.default_rng(seeding.key(self.seed, f"scene of {split}", number))
        size = self.size
        picture = self._ground(random)
        corners: list[tuple[float, float, float, float]] = []
        labels: list[str] = []
        known = _digits(split)
        for _ in range(int(random.integers(self.digits[0], self.digits[1] + 1))):
            ink, label = known[int(random.integers(len(known)))]
            scaled = _scale(ink, int(random.integers(self.digit_size[0], self.digit_size[1] + 1)))
            high, wide = scaled.shape
            if wide > size:
                continue
            # Anywhere, but hardly over another digit: nobody could read what lies below.
            for _ in range(_TRIES):
                top = int(random.integers(0, size - high + 1))
                left = int(random.integers(0, size - wide + 1))
                box = (float(left), float(top), float(left + wide), float(top + high))
                if all(_covered(box, other) <= _OVERLAP for other in corners):
                    break
            else:  # the picture is full
                continue
            part = picture[top : top + high, left : left + wide]
            # As light on light: ink adds to the ground, and never beyond white.
            part += scaled * random.uniform(0.6, 1.0) * (1 - part)
            corners.append(box)
            labels.append(label)
        picture += self.noise * random.standard_normal(picture.shape)
        pixels = (np.clip(picture, 0.0, 1.0) * 255).round().astype(np.uint8)
        boxes = np.array(corners, np.float32).reshape(-1, 4)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        target = Boxes(boxes, tuple(labels), np.zeros(len(labels), np.bool_), areas)
        return Example(f"{split}:{number}", pixels, target, f"scene {number} of {split}")

    def _ground(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Return light (H, W) that changes slowly, below a third of white."""
        coarse = torch.from_numpy(random.uniform(0.0, 0.35, (1, 1, 4, 4)))
        whole = F.interpolate(coarse, (self.size, self.size), mode="bicubic", align_corners=True)
        ground: NDArray[np.float64] = whole[0, 0].numpy()
        return ground


@lru_cache
def _digits(split: Split) -> list[tuple[NDArray[np.float64], str]]:
    """Return the digits of a split, cut to their ink, 0 to 1, with their names."""
    found = []
    for example in Arrays().examples(split, Path()):
        pixels = np.asarray(example.inputs, np.float64).reshape(8, 8)
        rows = np.flatnonzero((pixels > _INK).any(1))
        columns = np.flatnonzero((pixels > _INK).any(0))
        ink = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        found.append((ink / 16.0, str(example.target)))
    return found


def _scale(ink: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    """Return a digit so many pixels high, as wide in proportion."""
    width = max(2, round(height * ink.shape[1] / ink.shape[0]))
    whole = torch.from_numpy(ink.copy())[None, None]
    scaled: NDArray[np.float64] = F.interpolate(whole, (height, width), mode="bilinear")[
        0, 0
    ].numpy()
    return scaled


def _covered(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the share of the smaller of two boxes that the other covers."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(0.0, wide) * max(0.0, high) / min(areas)
