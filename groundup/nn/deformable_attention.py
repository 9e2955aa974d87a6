"""Attention to a few places near a box, on several feature maps.

Shape legend: B pictures, Q queries, S places of all maps, C width, H heads, D head dimension, L
    maps, P points of a map, h and w rows and columns of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.mlp import MLP
from groundup.nn.placed_attention import PlacedAttention, PlacedShape

__all__ = ["DeformableAttention", "DeformableBlock", "MapPlaces"]

# How far from the middle of its box the first point of a head begins, in halves of the box.
_REACH = 0.5


class MapPlaces:
    """What queries look at: the places of feature maps, one map after the other.

    Args:
        states: (B, S, C).
        sizes: Rows and columns of each map.
    """

    def __init__(self, states: Tensor, sizes: Sequence[tuple[int, int]]) -> None:
        self.states = states
        self.sizes = tuple(sizes)


class DeformableAttention(nn.Module):
    """Each query reads P points of each map and head, which it chooses itself around its box, and
    weighs them without comparing it with what is there.

    Args:
        width: C.
        heads: H.
        maps: L.
        points: P.

    Source:
        Zhu et al., 2020 (arXiv:2010.04159), equation 3, section 4.2 and appendix A.4.
    """

    def __init__(self, width: int, heads: int, maps: int, points: int) -> None:
        super().__init__()
        self._shape = (heads, maps, points)
        count = heads * maps * points
        self.offsets = nn.Linear(width, 2 * count)
        self.weights = nn.Linear(width, count)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Each head begins by looking another way, its points one behind the other.
        turns = torch.arange(heads) * (2 * math.pi / heads)
        ways = torch.stack((turns.cos(), turns.sin()), -1)
        ways = ways / ways.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, points + 1)[:, None]
        with torch.no_grad():
            grid = (ways[:, None, None] * steps).expand(heads, maps, points, 2)
            self.offsets.bias.copy_(grid.flatten())

    def forward(self, queries: Tensor, boxes: Tensor, places: MapPlaces) -> Tensor:
        """Return (B, Q, C).

        Args:
            queries: (B, Q, C), with their positions.
            boxes: (B, Q, 4) centre, width and height in shares of the picture.
            places: What is read.
        """
        heads, maps, points = self._shape
        values = self.value(places.states).unflatten(-1, (heads, -1))  # (B, S, H, D)
        offsets = self.offsets(queries).unflatten(-1, (heads, maps, points, 2))
        weights = self.weights(queries).unflatten(-1, (heads, maps * points)).softmax(-1)
        # In halves of the box, so that a query of a small thing looks closer than one of a large.
        middle = boxes[:, :, None, None, None, :2]
        reach = boxes[:, :, None, None, None, 2:] * (_REACH / points)
        # From -1 at the left or upper edge to 1 at the other, as sampling reads it.
        spots = 2 * (middle + offsets * reach) - 1  # (B, Q, H, L, P, 2)
        read = []
        areas = [height * width for height, width in places.sizes]
        for level, part in enumerate(values.split(areas, 1)):
            # What is sampled outside of the map is 0: points may leave the picture.
            # Heads are sampled as if they were pictures: (B H, D, h, w).
            grid = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, places.sizes[level])
            where = spots[:, :, :, level].transpose(1, 2).flatten(0, 1)  # (B H, Q, P, 2)
            read.append(
                F.grid_sample(grid, where.to(grid.dtype), mode="bilinear", align_corners=False)
            )
        weighed = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B H, 1, Q, L P)
        found = (torch.cat(read, -1) * weighed).sum(-1)  # (B H, D, Q)
        together = found.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)
        return self.output(together)  # type: ignore[no-any-return]


class DeformableBlock(nn.Module):
    """Attention among the queries, deformable attention to the maps, and the MLP, each added to its
    input and the sum normalised."""

    def __init__(self, shape: PlacedShape, maps: int, points: int) -> None:
        super().__init__()
        self.attention = PlacedAttention(shape.width, shape.heads)
        self.attention_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.cross_attention = DeformableAttention(shape.width, shape.heads, maps, points)
        self.cross_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation, bias=True)
        self.mlp_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, positions: Tensor, boxes: Tensor, places: MapPlaces) -> Tensor:
        """Return (B, Q, C).

        Args:
            x: (B, Q, C), the states of the queries.
            positions: (B, Q, C), of the queries' boxes.
            boxes: (B, Q, 4), as in ``DeformableAttention``.
            places: What the queries look at.
        """
        placed = x + positions
        x = self.attention_norm(x + self.dropout(self.attention(placed, placed, x, None)))
        found = self.cross_attention(x + positions, boxes, places)
        x = self.cross_norm(x + self.dropout(found))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))  # type: ignore[no-any-return]
