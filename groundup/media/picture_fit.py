"""Which part of a picture is read, and the size that it is brought to: the geometry alone.

Shape legend: H rows, W columns.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "CroppedPicture", "Frame", "PictureFit", "Placement", "Resample", "Resize"]

Resize = Literal["stretch", "crop", "pad"]
Resample = Literal["linear", "cubic"]
Box = tuple[int, int, int, int]  # left, top, right, bottom
Frame = tuple[float, float, float, float]
"""Where a picture's places are after resizing: x times the first number plus the third, and y times
the second plus the fourth; 0, 0 is the corner of a picture, not the middle of its first pixel."""
_TRIES = 10


class Placement(NamedTuple):
    """What becomes of one picture: a part of it is resized, and then cut or padded.

    Attributes:
        box: The part that is read.
        rows: What it is resized to.
        columns: What it is resized to.
        top: Where the result begins in that; negative where it is padded.
        left: Likewise.
        size: (H, W) of the result.
    """

    box: Box
    rows: int
    columns: int
    top: int
    left: int
    size: tuple[int, int]

    @property
    def frame(self) -> Frame:
        """Where the picture's places are in the result."""
        # By whole pixels, not by a factor: a picture of 5 pixels resized to 0.7 of it has 4 or 3.
        left, top, right, bottom = self.box
        across = self.columns / (right - left)
        down = self.rows / (bottom - top)
        return across, down, -self.left - left * across, -self.top - top * down


class PictureFit(NamedTuple):
    """How pictures are brought to one size.

    Attributes:
        size: (H, W); None: as a picture has.
        resize: How pictures of other proportions get this size.
        resample: How pixels between others are found.
        shorter: What the shorter side is resized to before ``crop`` keeps the middle; None: to what
            just covers ``size``.
    """

    size: tuple[int, int] | None
    resize: Resize = "stretch"
    resample: Resample = "linear"
    shorter: int | None = None

    def place(self, height: int, width: int, crop: CroppedPicture | None = None) -> Placement:
        """Return what becomes of a picture (H, W), or of the part of it that is drawn."""
        size = self.size or (height, width)
        if crop is not None:
            # A drawn part becomes the whole, whatever its proportions.
            return Placement(crop.region(height, width), *size, 0, 0, size)
        rows, columns = size
        if self.size is not None and self.resize != "stretch":
            rows, columns = self._scaled(height, width, self.size)
        top = -((size[0] - rows) // 2)
        left = -((size[1] - columns) // 2)
        if self.shorter is not None:
            # As torchvision's CenterCrop, which rounds halves to the even number.
            top = round((rows - size[0]) / 2)
            left = round((columns - size[1]) / 2)
        return Placement((0, 0, width, height), rows, columns, top, left, size)

    def _scaled(self, height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
        if self.shorter is not None:
            # The rule of torchvision's Resize, which ImageNet is evaluated by: the longer side is
            # rounded down.
            if height <= width:
                return self.shorter, int(self.shorter * width / height)
            return int(self.shorter * height / width), self.shorter
        choose = min
        if self.resize == "crop":
            choose = max
        factor = choose(size[0] / height, size[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))


class CroppedPicture(NamedTuple):
    """A picture of which a part is read, drawn once its size is known.

    Attributes:
        picture: A path, a stored file, or an array.
        draws: (40,) numbers in [0, 1), four for each of ten tries.
        scale: Smallest and largest share of the area.
        ratio: Smallest and largest width for a height of 1.

    Source:
        Szegedy et al., 2014, "Going deeper with convolutions" (arXiv:1409.4842), section 6; tries
        and what is done without one that fits as torchvision's RandomResizedCrop documents them.
    """

    picture: Any
    draws: NDArray[np.float64]
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def region(self, height: int, width: int) -> Box:
        """Return the part of a picture (H, W) that is read."""
        low, high = self.scale
        first, last = map(math.log, self.ratio)
        for area, ratio, across, down in self.draws.reshape(_TRIES, 4).tolist():
            wanted = height * width * (low + (high - low) * area)
            proportion = math.exp(first + (last - first) * ratio)
            columns = round(math.sqrt(wanted * proportion))
            rows = round(math.sqrt(wanted / proportion))
            if 0 < columns <= width and 0 < rows <= height:
                left = int(across * (width - columns + 1))
                top = int(down * (height - rows + 1))
                return left, top, left + columns, top + rows
        # None fits, as in a panorama: the middle, as much as the proportions allow.
        columns = min(width, max(1, round(height * self.ratio[1])))
        rows = min(height, max(1, round(width / self.ratio[0])))
        left = (width - columns) // 2
        top = (height - rows) // 2
        return left, top, left + columns, top + rows
