"""How near pictures are to others, pixel by pixel and by their structure.

Shape legend: B pictures, C channels, H rows, W columns. Pixels are 0 (black) to 1 (white).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["psnr", "ssim"]

_BEST = 100.0  # dB: of equal pictures it would be infinite
_WINDOW = 11
_SIGMA = 1.5
# Wang et al., section III-B: what keeps quotients of small numbers steady.
_SMALL = (0.01**2, 0.03**2)


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """Return (B,) the peak signal-to-noise ratio of each picture in dB, at most 100: minus ten
    times the decimal logarithm of the mean squared difference."""
    # In float64: 100 dB are a difference of 1e-5, which float32 has at white.
    squared = (pictures.double() - originals.double()).square().flatten(1).mean(1)
    return -10 * squared.clamp(min=10 ** (-_BEST / 10)).log10()


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """Return (B,) the structural similarity of each picture, 1 for equal ones; the mean over
    channels.

    Source:
        Wang et al., 2004, "Image quality assessment: from error visibility to structural
        similarity", equation 13, with its window of 11 x 11 and a standard deviation of 1.5.
        Departs from it: pictures of fewer pixels have the largest odd window that fits.
    """
    height, width = pictures.shape[2:]
    size = min(_WINDOW, height - 1 + height % 2, width - 1 + width % 2)
    places = torch.arange(size, dtype=torch.float64) - size // 2
    weights = (-(places**2) / (2 * _SIGMA**2)).exp()
    window = torch.outer(weights, weights) / weights.sum() ** 2

    def blur(maps: Tensor) -> Tensor:
        # A channel at a time: each is a picture of its own.
        flat = maps.flatten(0, 1)[:, None]
        return F.conv2d(flat, window.to(flat.device)[None, None])

    # Variances are differences of near numbers.
    x, y = pictures.double(), originals.double()
    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x**2
    variance_y = blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _SMALL[0]) / (mean_x**2 + mean_y**2 + _SMALL[0])
    structure = (2 * covariance + _SMALL[1]) / (variance_x + variance_y + _SMALL[1])
    each = (light * structure).flatten(1).mean(1)
    return each.view(pictures.shape[0], pictures.shape[1]).mean(1)
