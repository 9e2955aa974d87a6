"""Boxes told by how far their edges are from a point.

Shape legend: A points, R bins of a distance, ... any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["decode_distances", "distances_to"]


def decode_distances(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (..., A, 4) in pixels from what a detector says at its points.

    Args:
        distances: (..., A, 4, R) logits of the distances in strides, bin r standing for r; with
            R = 1 the distance itself.
        points: (A, 2) in pixels.
        strides: (A,) pixels.

    Source:
        The expected distance: Li et al., 2020 (arXiv:2006.04388), equation 5.
    """
    bins = distances.shape[-1]
    if bins == 1:
        lengths = distances[..., 0]
    else:
        # The mean of the distribution: finer than its bins.
        places = torch.arange(bins, dtype=distances.dtype, device=distances.device)
        lengths = distances.softmax(-1) @ places
    lengths = lengths * strides[:, None]
    return torch.cat((points - lengths[..., :2], points + lengths[..., 2:]), -1)


def distances_to(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return (..., 4) how far the edges of boxes (..., 4) are from points (..., 2), in strides
    (...): what ``decode_distances`` brings back; negative where a point is outside."""
    lengths = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), -1)
    return lengths / strides[..., None]
