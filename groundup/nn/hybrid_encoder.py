"""An encoder of feature maps that attends within the coarsest one and mixes the others by
convolutions.

Shape legend: B pictures, C width, h and w rows and columns of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.convolution import Convolution
from groundup.nn.placed_attention import PlacedBlock, PlacedShape, grid_sinusoids

__all__ = ["HybridEncoder", "convolution_with_norm"]

# Blocks of each mixing of two maps.
_BLOCKS = 3


def convolution_with_norm(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch norm."""
    return nn.Sequential(Convolution(inputs, outputs, kernel), nn.BatchNorm2d(outputs))


class _Activated(nn.Sequential):
    """A convolution, its batch norm, and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            Convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.SiLU()
        )


class _Twice(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, as of RepVGG: one 3x3 would do the same once
    trained, but learns less well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = convolution_with_norm(width, width, 3)
        self.narrow = convolution_with_norm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return F.silu(self.wide(x) + self.narrow(x))


class _Mix(nn.Module):
    """Two maps of one size made one: half of the work passes by the blocks.

    Args:
        width: Channels of each of the two, and of the result.
        inner: Channels of the blocks.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.through = _Activated(2 * width, inner)
        self.past = _Activated(2 * width, inner)
        self.blocks = nn.Sequential(*(_Twice(inner) for _ in range(_BLOCKS)))
        self.output: nn.Module | None = None
        if inner != width:
            self.output = _Activated(inner, width)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        both = torch.cat((one, other), 1)
        mixed = self.blocks(self.through(both)) + self.past(both)
        if self.output is None:
            return mixed  # type: ignore[no-any-return]
        return self.output(mixed)  # type: ignore[no-any-return]


class HybridEncoder(nn.Module):
    """Transformer blocks over the places of the coarsest map, then coarse maps into finer ones, and
    these back into the coarser.

    Args:
        shape: Of the transformer blocks.
        layers: How many there are.
        maps: How many maps, each half as large as the one before.
        inner: Channels where maps are mixed.

    Source:
        Zhao et al., 2023 (arXiv:2304.08069), section 4.2 and figure 4; the paths of maps: Lin et
        al., 2017 (arXiv:1612.03144) and Liu et al., 2018 (arXiv:1803.01534); its blocks: Ding et
        al., RepVGG, 2021 (arXiv:2101.03697), section 3.
    """

    def __init__(self, shape: PlacedShape, layers: int, maps: int, inner: int) -> None:
        super().__init__()
        width = shape.width
        self.attention = nn.ModuleList(PlacedBlock(shape) for _ in range(layers))
        self.sideways = nn.ModuleList(_Activated(width, width) for _ in range(maps - 1))
        self.finer = nn.ModuleList(_Mix(width, inner) for _ in range(maps - 1))
        self.halve = nn.ModuleList(_Activated(width, width, 3, 2) for _ in range(maps - 1))
        self.coarser = nn.ModuleList(_Mix(width, inner) for _ in range(maps - 1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps (B, C, h, w) of the same sizes, the finest first."""
        *fine, last = maps
        last = self._attend(last)
        # Down the pyramid: what is in a coarse map is told to the finer ones.
        coarse: list[Tensor] = []
        for sideways, mix, own in zip(self.sideways, self.finer, reversed(fine), strict=True):
            last = sideways(last)
            coarse.insert(0, last)
            last = mix(F.interpolate(last, scale_factor=2.0, mode="nearest"), own)
        # And up again, with the places that only the fine maps know.
        found = [last]
        for halve, mix, own in zip(self.halve, self.coarser, coarse, strict=True):
            found.append(mix(halve(found[-1]), own))
        return found

    def _attend(self, last: Tensor) -> Tensor:
        if not self.attention:
            return last
        height, width = last.shape[2:]
        x = last.flatten(2).transpose(1, 2)
        positions = grid_sinusoids(height, width, x.shape[2], x.device).to(x.dtype)
        for block in self.attention:
            x = block(x, positions)
        return x.transpose(1, 2).reshape(len(x), -1, height, width)
