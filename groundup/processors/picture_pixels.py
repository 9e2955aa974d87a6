"""The pixels of one picture: decoded, converted and resized as far as that is asked for.

Shape legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import StoredFile
from groundup.media.images import is_picture, read_placed
from groundup.media.picture_fit import (
    CroppedPicture,
    Frame,
    PictureFit,
    Placement,
    Resample,
    Resize,
)

__all__ = [
    "PictureForm",
    "Shape",
    "is_stored",
    "name_picture",
    "other_shape",
    "stack_grey",
]

Shape = tuple[int, int, int]
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
        whole_numbers: Files are resized by Pillow, to whole numbers; else as arrays are. They
            differ by at most 1 of 255, and at hard edges of a cubic by more.
        shorter: What the shorter side is resized to before the middle is kept; None: to what just
            covers ``size``.
    """

    channels: int | None
    size: tuple[int, int] | None
    resize: Resize
    resample: Resample
    depth: int = 16
    whole_numbers: bool = True
    shorter: int | None = None

    @property
    def fit(self) -> PictureFit:
        """How pictures get their size."""
        return PictureFit(self.size, self.resize, self.resample, self.shorter)

    def read(self, source: Any, where: str, seen: Counter[str] | None = None) -> NDArray[Any]:
        """Return a picture (C, H, W), float32 or of a file uint8, with its own values.

        Args:
            source: A path, the bytes of a file, a Pillow image, an array (H, W) or (H, W, C), or a
                part of one of these.
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
        crop = None
        if isinstance(source, CroppedPicture):
            crop, source = source, source.picture
        pixels = source
        placed = None
        if is_picture(source):
            fit = self.fit if self.whole_numbers else None
            pixels, placed = read_placed(
                source, where, self.channels, self.depth, seen, fit=fit, crop=crop
            )
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
        if placed is not None:
            # Not made into float32 here: whoever copies it into a batch does so in one go.
            return np.moveaxis(found, 2, 0), placed.frame
        picture = np.moveaxis(found, 2, 0).astype(np.float32, copy=False)
        if self.channels == 1 and len(picture) > 1:
            picture = np.tensordot(np.asarray(_GREY, np.float32), picture[:3], 1)[None]
        elif self.channels == 3 and len(picture) == 1:
            picture = np.repeat(picture, 3, axis=0)
        elif self.channels == 3:
            # Without transparency.
            picture = picture[:3]
        height, width = picture.shape[1:]
        placed = self.fit.place(height, width, crop)
        left, top, right, bottom = placed.box
        picture = picture[:, top:bottom, left:right]
        if picture.shape[1:] != tuple(placed.size):
            # torch takes neither negative strides nor arrays that cannot be written to.
            whole = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
            picture = _resize(whole, placed, self.resample).numpy()
        return np.require(picture, requirements=["C", "W"]), placed.frame


def _resize(picture: Tensor, placed: Placement, resample: Resample) -> Tensor:
    """Return (C, *size) of a picture (C, H, W): interpolation over the area that a new pixel
    covers."""
    new = (placed.rows, placed.columns)
    if resample == "linear":
        found = F.interpolate(picture[None], new, mode="bilinear", antialias=True)[0]
    else:
        found = F.interpolate(picture[None], new, mode="bicubic", antialias=True)[0]
        # A cubic overshoots at edges, beyond black and white.
        found = found.clamp(float(picture.min()), float(picture.max()))
    height, width = placed.size
    # Negative padding cuts off.
    right = placed.left + width - placed.columns
    bottom = placed.top + height - placed.rows
    return F.pad(found, (-placed.left, right, -placed.top, bottom))


def stack_grey(arrays: Sequence[Any]) -> NDArray[Any] | None:
    """Return arrays as one (N, H, W) if all are pictures of one grey channel and one size: they are
    then read all at once, which is much quicker."""
    first = np.shape(arrays[0]) if len(arrays) else ()
    if len(first) != 2:
        return None
    if any(not isinstance(each, np.ndarray) or each.shape != first for each in arrays):
        return None
    return np.stack(arrays)


def is_stored(source: Any) -> bool:
    """Whether a picture, or what a part is of, has to be decoded."""
    return is_picture(source.picture if isinstance(source, CroppedPicture) else source)


def name_picture(source: Any, number: int) -> str:
    """Return what to call a picture in messages: its file, or its number."""
    if isinstance(source, CroppedPicture):
        source = source.picture
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
