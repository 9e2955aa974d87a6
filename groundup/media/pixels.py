"""What is done at random to the pixels of pictures and to their geometry, each sample with its own
strength.

Shape legend: B pictures, C channels, H rows, W columns. Pixels are 0 (black) to 1 (white). Every
    result is a function of its own picture alone, to the last bit: nothing is summed over the
    batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "brighten",
    "change_contrast",
    "equalize",
    "posterize",
    "resample",
    "saturate",
    "sharpen",
    "solarize",
    "stretch_contrast",
    "to_bytes",
    "turn_hue",
]

# ITU-R BT.601.
_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
_LEVELS = 256


def resample(
    pictures: Tensor, matrices: NDArray[np.float64], shifts: NDArray[np.float64]
) -> Tensor:
    """Return (B, C, H, W) in which each pixel is taken, with linear interpolation, from where a map
    sends it.

    Args:
        pictures: (B, C, H, W); zero is what lies outside of them.
        matrices: (B, 2, 2): with the shifts, the place in the old picture of a place in the new
            one, both as (x, y) in pixels from the middle.
        shifts: (B, 2), in pixels.
    """
    count, _, height, width = pictures.shape
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = (torch.arange(height, dtype=torch.float32) - (height - 1) / 2)[:, None]
    grid = torch.empty(count, height, width, 2)
    # grid_sample counts from -1 to 1.
    for i, size in ((0, width), (1, height)):
        m = torch.from_numpy(matrices[:, i] * (2 / size)).float()
        t = torch.from_numpy(shifts[:, i] * (2 / size)).float()
        # Into the grid at once: it is the largest tensor here.
        down = m[:, 1:, None] * y + t[:, None, None]
        torch.add(m[:, :1, None] * x, down, out=grid[..., i])
    return F.grid_sample(pictures, grid, "bilinear", "zeros", align_corners=False)


def brighten(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return pixels times factors (B,)."""
    return (pixels * _wide(factors)).clamp(0, 1)


def change_contrast(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return pixels further from (factor > 1) or nearer to the mean grey of each picture."""
    # Summed in float64, so that the order of sums leaves no trace.
    mean = _grey(pixels).double().mean((1, 2, 3), keepdim=True).float()
    return (mean + (pixels - mean) * _wide(factors)).clamp(0, 1)


def saturate(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return pixels with more (factor > 1) or less colour."""
    grey = _grey(pixels)
    return (grey + (pixels - grey) * _wide(factors)).clamp(0, 1)


def turn_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Return pixels of three channels, their hue turned by shares of the circle (B,), in the colour
    space YIQ."""
    to = torch.tensor(_TO_YIQ, dtype=torch.float64)
    angle = turns.double() * (2 * torch.pi)
    turn = torch.eye(3, dtype=torch.float64).repeat(len(turns), 1, 1)
    turn[:, 1, 1] = angle.cos()
    turn[:, 1, 2] = -angle.sin()
    turn[:, 2, 1] = angle.sin()
    turn[:, 2, 2] = angle.cos()
    m = (to.inverse() @ turn @ to).float()[..., None, None]
    # Written out: a product of matrices may sum in an order that depends on the batch.
    channels = [sum(m[:, i, j] * pixels[:, j] for j in range(3)) for i in range(3)]
    return torch.stack(channels, 1).clamp(0, 1)  # type: ignore[arg-type]


def sharpen(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return pixels further from (factor > 1) or nearer to a smoothed picture."""
    around = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    smooth = (9 * around + 4 * pixels) / 13
    return (smooth + (pixels - smooth) * _wide(factors)).clamp(0, 1)


def solarize(pixels: Tensor, thresholds: Tensor) -> Tensor:
    """Return pixels, those above the threshold inverted."""
    return torch.where(pixels > _wide(thresholds), 1 - pixels, pixels).clamp(0, 1)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Return pixels with this many bits (B,), 1 to 8, a channel."""
    steps = _wide(2.0 ** (8 - bits.round()))
    return ((pixels * 255).div(steps, rounding_mode="floor") * steps / 255).clamp(0, 1)


def stretch_contrast(pixels: Tensor) -> Tensor:
    """Return pixels stretched so that each channel has black and white in it; a channel of one
    value stays."""
    low = pixels.amin((2, 3), keepdim=True)
    high = pixels.amax((2, 3), keepdim=True)
    # Nothing to stretch, and nothing to divide by.
    flat = high - low < 1e-6
    return torch.where(
        flat, pixels, (pixels - low) / torch.where(flat, torch.ones_like(high), high - low)
    ).clamp(0, 1)


def equalize(pixels: Tensor) -> Tensor:
    """Return pixels in which all of 256 levels are about equally frequent, each channel by
    itself."""
    levels = (pixels.clamp(0, 1) * (_LEVELS - 1)).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], _LEVELS).scatter_add_(
        2, levels, torch.ones(levels.shape)
    )
    below = counts.double().cumsum(2)
    darkest = below.masked_fill(counts == 0, float("inf")).amin(2, keepdim=True)
    # As in histogram equalisation of 8-bit pictures: the darkest level there is becomes black.
    table = (below - darkest) / (levels.shape[2] - darkest).clamp(min=1)
    flat = (darkest == levels.shape[2]).float()[..., None]
    found = table.gather(2, levels).float().view_as(pixels)
    return (flat * pixels + (1 - flat) * found).clamp(0, 1)


def _grey(pixels: Tensor) -> Tensor:
    """Return (B, 1, H, W)."""
    if pixels.shape[1] != 3:
        return pixels[:, :1]
    return _GREY[0] * pixels[:, :1] + _GREY[1] * pixels[:, 1:2] + _GREY[2] * pixels[:, 2:3]


def _wide(values: Tensor) -> Tensor:
    return values.float()[:, None, None, None]


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """Return (B, H, W) of grey pictures, (B, H, W, 3) of coloured ones, 8 bits a channel; what is
    beyond black and white is cut off."""
    found = (pictures.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = found.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels[..., 0] if pixels.shape[3] == 1 else pixels
