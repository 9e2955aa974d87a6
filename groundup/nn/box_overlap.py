"""How much boxes overlap.

Shape legend: boxes are (..., 4) left, top, right and bottom; leading dimensions are broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["areas", "generalized_overlap", "intersections", "overlap"]

# Below the area of any box that is not one of no area: it only keeps 0 / 0 from being NaN.
_LEAST = 1e-12


def areas(boxes: Tensor) -> Tensor:
    """Return (...), in squares of the boxes' unit; 0 where right is left of left."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def intersections(one: Tensor, other: Tensor) -> Tensor:
    """Return the area that is in both boxes."""
    least = torch.maximum(one[..., :2], other[..., :2])
    most = torch.minimum(one[..., 2:], other[..., 2:])
    return areas(torch.cat((least, most), -1))


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over the union of boxes, 0 to 1 (IoU)."""
    both = intersections(one, other)
    return both / (areas(one) + areas(other) - both).clamp(min=_LEAST)


def generalized_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over the union, less the share of the smallest box around both that
    is in neither: -1 to 1, with a gradient where boxes are apart (GIoU).

    Source:
        Rezatofighi et al., 2019 (arXiv:1902.09630), algorithm 1.
    """
    both = intersections(one, other)
    union = areas(one) + areas(other) - both
    around = torch.cat(
        (
            torch.minimum(one[..., :2], other[..., :2]),
            torch.maximum(one[..., 2:], other[..., 2:]),
        ),
        -1,
    )
    whole = areas(around).clamp(min=_LEAST)
    return both / union.clamp(min=_LEAST) - (whole - union) / whole
