"""Rectangles in whole pixels, one in each picture of a micro-batch.

Shape legend: B pictures, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["boxes_around", "boxes_within"]

Floats = NDArray[np.float64]


def boxes_within(
    height: int, width: int, x: Floats, y: Floats, wide: Floats, tall: Floats
) -> Tensor:
    """Return (B, 1, H, W), True in boxes that are wholly inside the picture.

    Args:
        height: H.
        width: W.
        x: (B,) where a box is, from 0 at the left edge to 1 at the right one.
        y: (B,) likewise, from the top.
        wide: (B,) its width in pixels; W at most is taken.
        tall: (B,) its height; H at most is taken.
    """
    wide = np.minimum(wide, width)
    tall = np.minimum(tall, height)
    return _mask(height, width, x * (width - wide), y * (height - tall), wide, tall)


def boxes_around(
    height: int, width: int, x: Floats, y: Floats, wide: Floats, tall: Floats
) -> Tensor:
    """Return (B, 1, H, W), True in boxes whose middle is at shares x and y of the picture; what is
    beyond its edges is cut off."""
    return _mask(height, width, x * width - wide / 2, y * height - tall / 2, wide, tall)


def _mask(height: int, width: int, left: Floats, top: Floats, wide: Floats, tall: Floats) -> Tensor:
    columns = _between(left, left + wide, width)
    rows = _between(top, top + tall, height)
    return torch.from_numpy((rows[:, :, None] & columns[:, None])[:, None])


def _between(start: Floats, stop: Floats, size: int) -> NDArray[np.bool_]:
    """Return (B, size), True from the rounded start up to, but without, the rounded stop."""
    place = np.arange(size)
    # Both edges are rounded alike, so boxes are as wide as was drawn on average.
    first = np.clip(np.round(start), 0, size)[:, None]
    return (place >= first) & (place < np.clip(np.round(stop), 0, size)[:, None])
