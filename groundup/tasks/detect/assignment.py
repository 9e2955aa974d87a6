"""Which points of a dense detector are to find which box, and how sure they are to be.

Shape legend: B pictures, K boxes, A points, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.nn.box_overlap import overlap

__all__ = ["NO_BOX", "Assignment", "assign"]

NO_BOX = -1
"""The box of a point that is to find none."""

# Of an overlap of 0, so that there is an order among such points, too.
_LEAST = 1e-9


class Assignment(NamedTuple):
    """What the points of a batch are to say.

    Attributes:
        box: (B, A) int64, the number of the picture's box that a point is to find, or ``NO_BOX``.
        score: (B, A) the probability that it is to give the box's class; 0 without a box.
    """

    box: Tensor
    score: Tensor


@torch.no_grad()
def assign(
    probabilities: Tensor,
    found: Tensor,
    points: Tensor,
    boxes: Tensor,
    labels: Tensor,
    wanted: Tensor,
    *,
    candidates: int,
    alpha: float,
    beta: float,
) -> Assignment:
    """Choose for each box the points inside it that see it best: task-aligned assignment.

    A point inside a box is aligned with it by ``t = s^alpha * u^beta``, of the probability s that
    it gives the box's class and the overlap u of the box it predicts. The best ``candidates``
    points of each box are to find it; a point of several boxes the one that its prediction overlaps
    most. They are to be as sure as their t, scaled so that the best point of a box is as sure as
    the largest overlap of any of them.

    Args:
        probabilities: (B, A, C) as predicted.
        found: (B, A, 4) as predicted, in pixels.
        points: (A, 2) in pixels.
        boxes: (B, K, 4) in pixels.
        labels: (B, K) classes; of what is not wanted whatever they are.
        wanted: (B, K) which are boxes to be found.
        candidates: How many points a box has at most.
        alpha: Of the probability.
        beta: Of the overlap.

    Source:
        Feng et al., TOOD, 2021 (arXiv:2108.07755), section 3.2.
        Departs from it: a box with no point inside, which is smaller than the finest stride, has
            the point that is nearest to its middle; it would be learned by none.
    """
    possible = _inside(points, boxes) & wanted[..., None]
    overlaps = overlap(found[:, None], boxes[:, :, None])  # (B, K, A)
    index = labels.clamp(min=0)[:, None].expand(-1, len(points), -1)
    chances = probabilities.gather(2, index).transpose(1, 2)
    # Its logarithm: the product of a small probability and a sixth power has no digits left.
    aligned = alpha * chances.clamp(min=_LEAST).log() + beta * overlaps.clamp(min=_LEAST).log()
    aligned = aligned.masked_fill(~possible, -math.inf)
    # Fewer points may be inside than candidates are asked for: those outside are -inf.
    best, places = aligned.topk(min(candidates, len(points)), dim=2)
    chosen = torch.zeros_like(possible).scatter_(2, places, best > -math.inf)
    if boxes.shape[1] > 1:
        # Nothing overlaps less than nothing: a point that is chosen wins over all that are not.
        owner = overlaps.masked_fill(~chosen, -1.0).argmax(1, keepdim=True)
        chosen &= torch.zeros_like(chosen).scatter_(1, owner, value=True)
    aligned = aligned.masked_fill(~chosen, -math.inf)
    # A box that lost all its points to others has no best one; its row is all zeros.
    top = aligned.amax(2, keepdim=True).clamp(min=-1e30)
    largest = (overlaps * chosen).amax(2, keepdim=True)
    scores = (aligned - top).exp() * largest
    # At most one box of each point is left, so the largest is its own.
    score = scores.amax(1)
    taken = chosen.any(1)
    box = torch.where(taken, chosen.to(torch.uint8).argmax(1), NO_BOX)
    return Assignment(box, score)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return (B, K, A) which points are inside boxes, or nearest to one that has none inside."""
    low = points - boxes[:, :, None, :2]
    high = boxes[:, :, None, 2:] - points
    inside = torch.minimum(low, high).amin(-1) > 0
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    nearest = torch.cdist(middles, points.expand(len(boxes), -1, -1)).argmin(2, keepdim=True)
    alone = ~inside.any(2, keepdim=True)
    return inside.scatter(2, nearest, inside.gather(2, nearest) | alone)
