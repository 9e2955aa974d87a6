"""Pictures turned, moved, recoloured and blanked at random.

Shape legend: B samples, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import Pictures
from groundup.media.augmentation.boxes import boxes_within
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import COLOURS, WARPS, PictureAugment
from groundup.media.pixels import (
    brighten,
    change_contrast,
    equalize,
    posterize,
    resample,
    saturate,
    sharpen,
    solarize,
    stretch_contrast,
    turn_hue,
)

__all__ = ["Warp", "augment_pictures", "erase_rectangles", "plan_changes"]


def augment_pictures(
    settings: PictureAugment, inputs: Tensor, draws: Draws, processor: Pictures
) -> Tensor:
    """Return (B, C, H, W): colours are changed first, then pixels are moved in one resampling, then
    rectangles are erased.

    One resampling, because each blurs the picture a little.
    """
    inputs, warp = plan_changes(settings, inputs, draws, processor)
    if set(settings.used) & set(WARPS):
        inputs = resample(inputs, warp.matrices, warp.shifts)
    return erase_rectangles(settings, inputs, draws)


def plan_changes(
    settings: PictureAugment, inputs: Tensor, draws: Draws, processor: Pictures
) -> tuple[Tensor, Warp]:
    """Return inputs with other colours, and the map by which they are then to be moved, such as
    with the boxes in them.

    Args:
        settings: What is done.
        inputs: (B, C, H, W), left as they are.
        draws: The samples' random numbers.
        processor: What reads the inputs.
    """
    used = set(settings.used)
    warp = Warp(len(inputs), inputs.shape[2], inputs.shape[3])
    if used & set(COLOURS):
        pixels = _change_colours(settings, processor.to_pixels(inputs).clamp(0, 1), draws)
        for number in range(settings.randaugment):
            strength = settings.randaugment_magnitude / 10
            pixels = _apply_drawn_operation(pixels, warp, strength, draws, number)
        inputs = processor.from_pixels(pixels)
    _move(settings, warp, draws)
    return inputs, warp


class Warp:
    """Maps from places in the new pictures to places in the old ones, one a sample, being put
    together: matrix times place plus shift, both places in pixels from the middle.

    Attributes:
        matrices: (B, 2, 2).
        shifts: (B, 2).
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.matrices = np.broadcast_to(np.eye(2), (count, 2, 2)).copy()
        self.shifts = np.zeros((count, 2))

    def then(self, a: Any = 1.0, b: Any = 0.0, c: Any = 0.0, d: Any = 1.0) -> None:
        """Let ((a, b), (c, d)), numbers or (B,), act on the new picture's places first."""
        (m, n), (o, p) = self.matrices.transpose(1, 2, 0)
        self.matrices = np.stack(
            [m * a + n * c, m * b + n * d, o * a + p * c, o * b + p * d], -1
        ).reshape(-1, 2, 2)

    def place(self, factor: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        """Let places times factors (B,) plus shifts (B, 2) be what was the new picture's places, so
        that it is shrunk and put somewhere in a larger one."""
        self.shifts = self.shifts + np.einsum("bij,bj->bi", self.matrices, shift)
        self.matrices = self.matrices * factor[:, None, None]

    def turn(self, degrees: NDArray[np.float64]) -> None:
        angle = np.deg2rad(degrees)
        self.then(np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))

    def shift(self, x: Any, y: Any) -> None:
        """Move by pixels of the old picture, numbers or (B,)."""
        self.shifts += np.stack(np.broadcast_arrays(x, y, np.zeros(len(self.shifts)))[:2], -1)


def _move(settings: PictureAugment, warp: Warp, draws: Draws) -> None:
    if settings.rotate_degrees:
        warp.turn(draws.symmetric("rotate", settings.rotate_degrees))
    if settings.scale != (1.0, 1.0):
        low, high = settings.scale
        factor = 1 / (low + (high - low) * draws("scale")[0])
        warp.then(factor, 0.0, 0.0, factor)
    size = np.array([[warp.width], [warp.height]])
    if settings.shift:
        across, down = (2 * draws("shift", 2) - 1) * settings.shift * size
        warp.shift(across, down)
    if settings.crop:
        # Whole pixels, so that cutting out does not blur.
        across, down = np.round((2 * draws("crop", 2) - 1) * settings.crop * size)
        warp.shift(across, down)
    if settings.flip:
        warp.then(a=np.where(draws("flip")[0] < 0.5, -1.0, 1.0))
    if settings.vertical_flip:
        warp.then(d=np.where(draws("vertical_flip")[0] < 0.5, -1.0, 1.0))


def _change_colours(settings: PictureAugment, pixels: Tensor, draws: Draws) -> Tensor:
    changes = (
        ("brightness", settings.brightness, brighten),
        ("contrast", settings.contrast, change_contrast),
        ("saturation", settings.saturation, saturate),
    )
    for name, strength, change in changes:
        if strength:
            pixels = change(pixels, torch.from_numpy(1 + draws.symmetric(name, strength)))
    if settings.hue:
        pixels = turn_hue(pixels, torch.from_numpy(draws.symmetric("hue", settings.hue)))
    return pixels


def _apply_drawn_operation(
    pixels: Tensor, warp: Warp, strength: float, draws: Draws, number: int
) -> Tensor:
    """Return pixels after one of RandAugment's operations each; one that moves pixels is added to
    the warp.

    Source:
        Cubuk et al., 2019, "RandAugment" (arXiv:1909.13719), section 3 and figure 2. Departs from
        it: all that moves pixels is done together at the end, in one resampling.
    """
    choice, sign = draws(f"randaugment {number}", 2)
    operation = (choice * 14).astype(np.int64)
    signed = np.where(sign < 0.5, -strength, strength)
    # Operations 0 to 4 move pixels: a turn, two shears, two shifts. No change where not drawn.
    warp.turn(np.where(operation == 0, 30 * signed, 0.0))
    warp.then(
        1.0,
        np.where(operation == 1, 0.3 * signed, 0.0),
        np.where(operation == 2, 0.3 * signed, 0.0),
        1.0,
    )
    warp.shift(
        np.where(operation == 3, 0.33 * signed, 0.0) * warp.width,
        np.where(operation == 4, 0.33 * signed, 0.0) * warp.height,
    )
    factor = torch.from_numpy(1 + 0.9 * signed)
    # 13 changes nothing.
    changes: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
        5: brighten,
        6: change_contrast,
        7: saturate,
        8: sharpen,
        9: lambda chosen, factors: solarize(chosen, torch.full_like(factors, 1 - strength)),
        10: lambda chosen, factors: posterize(chosen, torch.full_like(factors, 8 - 4 * strength)),
        11: lambda chosen, factors: stretch_contrast(chosen),
        12: lambda chosen, factors: equalize(chosen),
    }
    # Each operation is computed only for the pictures that drew it.
    pixels = pixels.clone()
    for which, change in changes.items():
        rows = torch.from_numpy(np.flatnonzero(operation == which))
        if len(rows):
            pixels[rows] = change(pixels[rows], factor[rows])
    return pixels


def erase_rectangles(settings: PictureAugment, inputs: Tensor, draws: Draws) -> Tensor:
    """Return pictures, each with a rectangle of zeros by the chance that the settings say.

    Source:
        Zhong et al., 2017, "Random erasing data augmentation" (arXiv:1708.04896), algorithm 1.
        Departs from it: zeros instead of random values, and a rectangle too large for the picture
            is cut off at its edges.
    """
    if not settings.erase:
        return inputs
    drawn, area, aspect, across, down = draws("erase", 5)
    height, width = inputs.shape[2:]
    size = (0.02 + 0.31 * area) * height * width * (drawn < settings.erase)
    # The logarithm of the aspect ratio is uniform: as often wide as tall.
    tall = np.sqrt(size * np.exp((2 * aspect - 1) * np.log(1 / 0.3)))
    wide = np.divide(size, tall, out=np.zeros_like(size), where=tall > 0)
    return inputs.masked_fill(boxes_within(height, width, across, down, wide, tall), 0.0)
