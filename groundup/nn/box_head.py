"""Boxes as set-prediction detectors say them: centre, width and height in shares of a picture.

Shape legend: leading dimensions are kept; C channels, S places of all maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "LayersMLP",
    "begin_rare",
    "first_boxes",
    "from_centres",
    "inverse_sigmoid",
    "to_centres",
]

# How near to 0 and 1 shares are taken before the logarithm, as the authors of Deformable DETR do.
_NEAREST = 1e-5
# Width and height of the box that a place of the finest map begins with, in shares of the picture;
# of each coarser map twice as much.
_FIRST_BOX = 0.05
# Places whose box begins so near to 0 or 1 have no part: its logit would be too large.
_EDGE = 1e-2
# Probability of every class at the start, when hardly any query sees a thing.
_PRIOR = 0.01


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
    return (shares.clamp(_NEAREST, 1.0) / (1 - shares).clamp(_NEAREST, 1.0)).log()


def begin_rare(layer: nn.Linear) -> None:
    """Draw the weights of an output layer of classes by themselves, which says at the start that
    there is hardly anything of any class.

    Source:
        Lin et al., 2017 (arXiv:1708.02002), section 3.3.
    """
    nn.init.xavier_uniform_(layer.weight)
    nn.init.constant_(layer.bias, -math.log((1 - _PRIOR) / _PRIOR))


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


def first_boxes(sizes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (1, S, 4) the logits of the box that each place begins with, and (1, S, 1) which
    places have a part: not those at the edges of large pictures."""
    found = []
    for level, (height, width) in enumerate(sizes):
        down = (torch.arange(height, device=device) + 0.5) / height
        across = (torch.arange(width, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).flatten(0, 1)
        # Coarse maps see large things.
        sides = torch.full_like(grid, _FIRST_BOX * 2**level)
        found.append(torch.cat((grid, sides), -1))
    boxes = torch.cat(found)[None]
    inside = ((boxes > _EDGE) & (boxes < 1 - _EDGE)).all(-1, keepdim=True)
    # The largest number: what is added to it changes nothing, and its sigmoid is 1.
    most = torch.finfo(torch.float32).max
    return torch.where(inside, boxes.logit(), most), inside
