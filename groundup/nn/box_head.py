"""Boxes as set-prediction detectors say them: centre, width and height in shares of a picture.

Shape legend: leading dimensions are kept; C channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LayersMLP", "from_centres", "inverse_sigmoid", "to_centres"]

# How near to 0 and 1 shares are taken before the logarithm, as the authors of Deformable DETR do.
_EDGE = 1e-5


def to_centres(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Return (..., 4) centre, width and height in shares of a picture's width and height.

    Args:
        boxes: (..., 4) left, top, right and bottom in pixels.
        sizes: (..., 2) width and height of the picture in pixels.
    """
    least = boxes[..., :2] / sizes
    most = boxes[..., 2:] / sizes
    return torch.cat(((least + most) / 2, most - least), -1)


def from_centres(boxes: Tensor, sizes: Tensor, corner: Tensor | None = None) -> Tensor:
    """Return (..., 4) left, top, right and bottom in pixels; the inverse of ``to_centres``.

    Args:
        boxes: (..., 4) centre, width and height in shares.
        sizes: (..., 2) width and height of the picture in pixels.
        corner: (..., 2) where the picture begins in what is padded; None: at 0, 0.
    """
    middle = boxes[..., :2]
    half = boxes[..., 2:] / 2
    least = (middle - half) * sizes
    most = (middle + half) * sizes
    if corner is not None:
        least = least + corner
        most = most + corner
    return torch.cat((least, most), -1)


def inverse_sigmoid(shares: Tensor) -> Tensor:
    """Return the logits of shares, those of 0 and 1 finite."""
    return (shares.clamp(_EDGE, 1) / (1 - shares).clamp(_EDGE, 1)).log()


class LayersMLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: Of the inputs, of what is between the layers, and of the outputs.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., C out) from x (..., C)."""
        *inner, last = self.layers
        for layer in inner:
            x = F.relu(layer(x))
        return last(x)  # type: ignore[no-any-return]
