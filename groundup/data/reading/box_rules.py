"""What becomes of each box of a picture: kept, cut off at the picture's edges, or a mistake.

Shape legend: K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from groundup.contracts.detection import Boxes
from groundup.data.reading.marked_pictures import Corners, Marked, MarkedBox, MarkedPicture

__all__ = ["Outside", "PictureSize", "settle_boxes"]

Outside = Literal["clip", "refuse"]
_NUMBERS = "boxes in shares of the picture where pixels are expected"
_FIX = "Correct it, or remove it"
# Shares are rounded when they are written: so much beyond an edge is no mistake.
_ROUNDING = 1e-3
# In shares a box cannot reach further than this beyond the picture by any rounding.
_LARGEST_SHARE = 2.0
_TURNED = (5, 6, 7, 8)  # orientations of EXIF in which width and height are swapped


class PictureSize(NamedTuple):
    """A picture's size as it is stored, and how EXIF says that it is to be turned."""

    width: int
    height: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height once it is turned."""
        if self.orientation in _TURNED:
            return self.height, self.width
        return self.width, self.height


def settle_boxes(
    picture: MarkedPicture,
    size: PictureSize,
    outside: Outside,
    found: Marked,
    *,
    certain: bool = False,
) -> Boxes | None:
    """Return the boxes of a picture in pixels of it turned upright; what cannot be used is noted.

    Args:
        picture: The boxes as a file has them.
        size: The picture's.
        outside: What becomes of boxes that reach beyond the picture.
        found: Told of problems, and of what was changed.
        certain: The recipe says the units of the boxes: numbers that look like others are meant.

    Returns:
        The boxes; None where the file speaks of a picture of another size.
    """
    width, height = size.upright
    # Of pictures that a camera turned, some programs annotate what is stored, and others what is
    # seen; the size that they wrote down tells which.
    turned = False
    if picture.size is not None and picture.size != (width, height):
        stored = (size.width, size.height)
        # Of a square it cannot be told: it is taken as it is seen.
        turned = size.orientation in _TURNED and picture.size == stored
        if not turned:
            given = f"{picture.size[0]:g} x {picture.size[1]:g}"
            found.complain(
                "pictures of another size than their annotations say",
                picture.where,
                f"the annotations say {given} pixels, but {picture.name} has {width} x {height}",
                "Give the pictures that were annotated, or correct the size",
            )
            return None
        found.notes["pictures whose boxes are turned upright with them, as EXIF says"] += 1
    # Looked at one by one: a picture has few boxes, and each mistake is to be named by its row.
    kept: list[tuple[MarkedBox, Corners]] = []
    seen: set[tuple[str, Corners]] = set()
    # Shares of a picture that is turned afterwards are of its stored sides.
    scale = (size.width, size.height) if turned else (width, height)
    for box in picture.boxes:
        corners = _in_pixels(box, picture.shares, scale, found, certain=certain)
        if corners is not None and turned:
            corners = _turn(corners, size)
        if corners is not None:
            corners = _within(box, corners, (width, height), outside, found)
        if corners is None:
            continue
        # Merged data sets hold some boxes twice; a detector would be asked for two things.
        if (box.label, corners) in seen:
            found.notes["boxes that repeat one of the same class exactly, left out"] += 1
            continue
        seen.add((box.label, corners))
        kept.append((box, corners))
    return _as_arrays(kept)


def _as_arrays(kept: Sequence[tuple[MarkedBox, Corners]]) -> Boxes:
    corners = np.array([own for _, own in kept], np.float32).reshape(-1, 4)
    sizes = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    areas = np.array([box.area or np.inf for box, _ in kept], np.float32)
    return Boxes(
        corners,
        tuple(box.label for box, _ in kept),
        np.array([box.crowd for box, _ in kept], np.bool_),
        # An outline is never larger than its box, which may have been cut off.
        np.minimum(areas, sizes),
    )


def _in_pixels(
    box: MarkedBox, shares: bool, scale: tuple[int, int], found: Marked, *, certain: bool
) -> Corners | None:
    """Return a box in pixels, or None where its numbers are in other units than is said."""
    width, height = scale
    left, top, right, bottom = box.corners
    largest = max(map(abs, box.corners))
    if shares:
        if largest > _LARGEST_SHARE and not certain:
            found.complain(
                "boxes in pixels where shares of the picture are expected",
                box.where,
                f"{_shown(box.corners)} reaches beyond 1: these look like pixels, where shares of"
                " the width and height are expected",
                "Divide by the picture's size, or set data.units: pixels",
            )
            return None
        return left * width, top * height, right * width, bottom * height
    # A thing within the first pixel of a picture is not what anybody draws a box around.
    if largest <= 1 and min(width, height) > 1 and not certain:
        found.complain(
            _NUMBERS,
            box.where,
            f"{_shown(box.corners)} lies within 0 and 1: these look like shares of the width and"
            " height (relative units), where pixels are expected",
            "Set data.units: relative",
        )
        return None
    return box.corners


def _turn(corners: Corners, size: PictureSize) -> Corners:
    """Return corners of a picture as it is stored as those of it turned upright."""
    left, top, right, bottom = corners
    # Transposed first; then 6 is mirrored left to right, 8 top to bottom, and 7 both.
    left, top, right, bottom = top, left, bottom, right
    width, height = size.upright
    if size.orientation in (6, 7):
        left, right = width - right, width - left
    if size.orientation in (7, 8):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _within(
    box: MarkedBox, corners: Corners, size: tuple[int, int], outside: Outside, found: Marked
) -> Corners | None:
    """Return a box cut off at the edges of its picture, or None where it is no box."""
    width, height = size
    left, top, right, bottom = corners
    shown = _shown(corners)
    if right < left or bottom < top:
        found.complain(
            "boxes with corners swapped",
            box.where,
            f"the box {shown} ends before it begins: its corners are swapped, or its width or"
            " height is negative",
            _FIX,
        )
        return None
    if right == left or bottom == top:
        found.complain("boxes of no area", box.where, f"the box {shown} has no area", _FIX)
        return None
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        found.complain(
            "boxes outside of their picture",
            box.where,
            f"the box {shown} is outside of the picture, which has {width} x {height} pixels",
            _FIX,
        )
        return None
    # 0, 0 is the corner of the first pixel, so the last one ends at width, height.
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    beyond = max(abs(one - other) for one, other in zip(corners, inside, strict=True))
    if beyond > _ROUNDING * max(width, height) and outside == "refuse":
        found.complain(
            "boxes that reach beyond their picture",
            box.where,
            f"the box {shown} reaches {beyond:.4g} pixels beyond the picture, which has {width} x"
            f" {height}",
            "Correct it, or set data.outside: clip to cut it off at the edge",
        )
        return None
    if beyond > _ROUNDING:  # pixels: less is only a rounding of numbers
        found.notes["boxes cut off at the edges of their picture"] += 1
    return inside


def _shown(corners: Corners) -> str:
    """Return the corners for a message."""
    left, top, right, bottom = corners
    return f"({left:g}, {top:g}) to ({right:g}, {bottom:g})"
