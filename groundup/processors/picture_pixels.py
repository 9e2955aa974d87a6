"""The pixels of one picture: decoded, converted and resized as far as that is asked for.

Shape legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import StoredFile
from groundup.media.images import is_picture, read_picture

__all__ = [
    "Frame",
    "PictureForm",
    "Resample",
    "Resize",
    "Shape",
    "name_picture",
    "other_shape",
    "stack_grey",
]

Resize = Literal["stretch", "crop", "pad"]
Resample = Literal["linear", "cubic"]
Shape = tuple[int, int, int]
Frame = tuple[float, float, float, float]
"""Where a picture's places are after resizing: x times the first number plus the third, and y times
the second plus the fourth; 0, 0 is the corner of a picture, not the middle of its first pixel."""
# Of red, green and blue, as ITU-R BT.601 weighs them.
_GREY = (0.299, 0.587, 0.114)


class PictureForm(NamedTuple):
    """What pictures are brought to.

    Attributes:
        channels: 1 for grey, 3 for colour; None: as a picture has.
        size: (H, W); None: as a picture has.
        resize: How pictures of other proportions get this size.
        resample: How pixels between others are found.
        depth: How many of 16 bits a channel are used, in files that have as many.
    """

    channels: int | None
    size: tuple[int, int] | None
    resize: Resize
    resample: Resample
    depth: int = 16

    def read(self, source: Any, where: str, seen: Counter[str] | None = None) -> NDArray[Any]:
        """Return a picture (C, H, W) float32 with its own values.

        Args:
            source: A path, the bytes of a file, a Pillow image, or an array (H, W) or (H, W, C).
            where: What to call it in messages.
            seen: Counts what was converted.

        Raises:
            DataError: If it cannot be read, or has another number of axes or channels.
        """
        return self.read_placed(source, where, seen)[0]

    def read_placed(
        self, source: Any, where: str, seen: Counter[str] | None = None
    ) -> tuple[NDArray[Any], Frame]:
        """Return what ``read`` does, and where the picture's places are in it."""
        pixels = source
        if is_picture(source):
            pixels = read_picture(source, where, self.channels, self.depth, seen)
        found = np.asarray(pixels)
        if found.ndim == 2:
            found = found[:, :, None]
        if found.ndim != 3 or found.shape[2] not in (1, 3, 4):
            raise DataError(
                where,
                f"has shape {np.shape(source)}; allowed: (height, width) or (height, width, 1, 3 or"
                " 4 channels)",
                "Reshape the inputs",
            )
        picture = np.moveaxis(found, 2, 0).astype(np.float32, copy=False)
        if self.channels == 1 and len(picture) > 1:
            picture = np.tensordot(np.asarray(_GREY, np.float32), picture[:3], 1)[None]
        elif self.channels == 3 and len(picture) == 1:
            picture = np.repeat(picture, 3, axis=0)
        elif self.channels == 3:
            # Without transparency.
            picture = picture[:3]
        frame: Frame = (1.0, 1.0, 0.0, 0.0)
        if self.size is not None and picture.shape[1:] != tuple(self.size):
            # torch takes neither negative strides nor arrays that cannot be written to.
            whole = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
            resized, frame = _resize(whole, self.size, self.resize, self.resample)
            picture = resized.numpy()
        return np.require(picture, requirements=["C", "W"]), frame


def _resize(
    picture: Tensor, size: tuple[int, int], resize: Resize, resample: Resample
) -> tuple[Tensor, Frame]:
    """Return (C, *size) of a picture (C, H, W), by interpolation over the area that a new pixel
    covers; and where its places are."""
    height, width = picture.shape[1:]
    rows, columns = size
    if resize != "stretch":
        choose = max if resize == "crop" else min
        factor = choose(rows / height, columns / width)
        rows = max(1, round(height * factor))
        columns = max(1, round(width * factor))
    if resample == "linear":
        found = F.interpolate(picture[None], (rows, columns), mode="bilinear", antialias=True)[0]
    else:
        found = F.interpolate(picture[None], (rows, columns), mode="bicubic", antialias=True)[0]
        # A cubic overshoots at edges, beyond black and white.
        found = found.clamp(float(picture.min()), float(picture.max()))
    top = (size[0] - rows) // 2
    left = (size[1] - columns) // 2
    # By whole pixels, not by the factor: a picture of 5 pixels resized to 0.7 of it has 4 or 3.
    frame = (columns / width, rows / height, float(left), float(top))
    # Here both margins are negative, or 0.
    if resize == "crop":
        return found[:, -top : size[0] - top, -left : size[1] - left], frame
    return F.pad(found, (left, size[1] - columns - left, top, size[0] - rows - top)), frame


def stack_grey(arrays: Sequence[Any]) -> NDArray[Any] | None:
    """Return arrays as one (N, H, W) if all are pictures of one grey channel and one size: they are
    then read all at once, which is much quicker."""
    first = np.shape(arrays[0]) if len(arrays) else ()
    if len(first) != 2:
        return None
    if any(not isinstance(each, np.ndarray) or each.shape != first for each in arrays):
        return None
    return np.stack(arrays)


def name_picture(source: Any, number: int) -> str:
    """Return what to call a picture in messages: its file, or its number."""
    return str(source) if isinstance(source, str | Path | StoredFile) else f"picture {number}"


def _remedy(found: tuple[int, ...], shape: Shape) -> str:
    if found[1:] == tuple(shape)[1:]:
        return "Set processor.channels: 3, or 1 for grey, or give pictures of one kind"
    size = f"processor.size: [{shape[1]}, {shape[2]}]"
    if found[0] != shape[0]:
        return f"Set {size} and processor.channels: 3, or give pictures of one kind"
    return f"Set {size}, or give pictures of one kind"


def other_shape(where: str, found: tuple[int, ...], shape: Shape) -> DataError:
    """Return the error for a picture of another shape than the others."""
    return DataError(
        where,
        f"has {found[1]} x {found[2]} pixels and {found[0]} channels, but the others {shape[1]} x"
        f" {shape[2]} and {shape[0]}",
        _remedy(found, shape),
    )
