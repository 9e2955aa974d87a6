"""Transformer blocks of set-prediction detectors: positions are added in every layer, to what
attention compares and not to what it passes on.

Shape legend: B pictures, T places or queries, S places that are attended to, C width, H heads, D
    head dimension, h and w rows and columns of a feature map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.mlp import MLP
from groundup.nn.positions import sinusoids

__all__ = [
    "PlacedAttention",
    "PlacedBlock",
    "PlacedShape",
    "Places",
    "grid_sinusoids",
    "picture_sinusoids",
]


@dataclass(frozen=True)
class PlacedShape:
    """The sizes of a block.

    Attributes:
        width: C.
        heads: H.
        mlp_width: Inner width of the MLP.
        dropout: Share of what attention and MLP give that is dropped in training.
        activation: Of the MLP.
        norm_eps: Added to the variance in every norm.
    """

    width: int
    heads: int
    mlp_width: int
    dropout: float = 0.0
    activation: Literal["relu", "gelu", "silu"] = "relu"
    norm_eps: float = 1e-5


class PlacedAttention(nn.Module):
    """Attention whose queries and keys are told where they are.

    Source:
        Carion et al., 2020 (arXiv:2005.12872), appendix A.3 and figure 10.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, C).

        Args:
            queries: (B, T, C), with their positions.
            keys: (B, S, C), with theirs.
            values: (B, S, C), without.
            mask: (B, 1, 1, S) booleans, which places are seen; None: all.
        """
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        out = F.scaled_dot_product_attention(query, key, value, mask)  # (B, H, T, D)
        return self.output(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Places:
    """What queries look at.

    Attributes:
        states: (B, S, C).
        placed: (B, S, C), these with their positions.
        mask: (B, 1, 1, S) booleans, which places are seen; None: all.
    """

    states: Tensor
    placed: Tensor
    mask: Tensor | None


class PlacedBlock(nn.Module):
    """Attention among themselves, in a decoder attention to a picture's places, and the MLP, each
    added to its input and the sum normalised.

    Args:
        shape: The sizes.
        decodes: Whether it is one of the decoder's.
    """

    def __init__(self, shape: PlacedShape, *, decodes: bool = False) -> None:
        super().__init__()
        self.attention = PlacedAttention(shape.width, shape.heads)
        self.attention_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.cross_attention: PlacedAttention | None = None
        self.cross_norm: nn.Module | None = None
        if decodes:
            self.cross_attention = PlacedAttention(shape.width, shape.heads)
            self.cross_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation, bias=True)
        self.mlp_norm = nn.LayerNorm(shape.width, shape.norm_eps)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        picture: Places | None = None,
    ) -> Tensor:
        """Return (B, T, C).

        Args:
            x: (B, T, C).
            positions: (B or 1, T, C), added to what attention compares.
            mask: (B, 1, 1, T) booleans, which of x are seen; None: all.
            picture: What the queries of a decoder look at.
        """
        # Where something is says what to look at, and is no part of what is seen there.
        placed = x + positions
        x = self.attention_norm(x + self.dropout(self.attention(placed, placed, x, mask)))
        if self.cross_attention is not None and self.cross_norm is not None:
            assert picture is not None
            found = self.cross_attention(
                x + positions, picture.placed, picture.states, picture.mask
            )
            x = self.cross_norm(x + self.dropout(found))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))  # type: ignore[no-any-return]


def picture_sinusoids(seen: Tensor, width: int) -> Tensor:
    """Return (B, h w, C) float32, where the places of feature maps are: half of the channels say
    how far down, half how far across, by sines and cosines in turn.

    Args:
        seen: (B, h, w) booleans: which places are of the picture, and not of what pads it. Lengths
            are in shares of the picture, so that its edges are the same for pictures of all sizes.
        width: C, a multiple of 4.

    Source:
        Carion et al., 2020 (arXiv:2005.12872), appendix A.4; shares of 2 pi as in the authors'
        code.
    """
    half = width // 2
    exponents = torch.arange(0, half, 2, device=seen.device) / half
    scales = 10000.0**exponents
    parts = []
    for across in (1, 2):
        places = seen.float().cumsum(across)
        whole = places.amax(across, keepdim=True)
        # What the authors add keeps a map of padding alone from 0 / 0.
        angles = (places / (whole + 1e-6) * (2 * math.pi))[..., None] / scales
        parts.append(torch.stack((angles.sin(), angles.cos()), -1).flatten(-2))
    return torch.cat(parts, -1).flatten(1, 2)


def grid_sinusoids(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return (1, h w, C) float32: a quarter of the channels are sines of how far down a place is, a
    quarter cosines, and the other half says how far across it is.

    Places are counted in steps of the map, and not in shares of it as ``picture_sinusoids`` has
    them.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.5, for two directions, as the authors of
        RT-DETR have it.
    """
    down = sinusoids(torch.arange(height, device=device), channels // 2)
    across = sinusoids(torch.arange(width, device=device), channels // 2)
    both = (
        down[:, None].expand(height, width, -1),
        across[None].expand(height, width, -1),
    )
    return torch.cat(both, -1).flatten(0, 1)[None]
