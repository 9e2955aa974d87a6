"""Pictures next to each other, as what a model made is shown.

Shape legend: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.processors import LabelProcessor, Pictures
from groundup.contracts.tasks import Picture
from groundup.core.errors import RecipeError
from groundup.media.png import encode_png

__all__ = ["arrange", "as_bytes", "check_around_zero", "pictures_of", "png_sheet", "sheets"]

_GAP = 1  # pixels between pictures


def pictures_of(processor: LabelProcessor) -> Pictures:
    """Return what reads pictures and shows what was read.

    Raises:
        RecipeError: If the processor reads no pictures.
    """
    reader = processor.inputs
    if not isinstance(reader, Pictures):
        raise RecipeError(
            "recipe.processor", "makes no pictures, which generate_images learns", "Choose image"
        )
    return reader


def check_around_zero(processor: LabelProcessor) -> None:
    """Check that pictures have numbers around 0, as noise has.

    Raises:
        RecipeError: If they have not.
    """
    # The commonest silent fault: pictures from 0 to 1, of which a model makes grey fog.
    black = pictures_of(processor).from_pixels(torch.zeros(1, *processor.input_shape))
    if float(black.min()) >= 0:
        raise RecipeError(
            "recipe.processor.normalise",
            "gives pictures without numbers below 0, but noise is around 0, and what is between"
            " both would be neither",
            "Write normalise: given with mean [0.5] and std [0.5] (three each in colour)",
        )


def as_bytes(made: Tensor, processor: LabelProcessor) -> list[NDArray[np.uint8]]:
    """Return (H, W) or (H, W, 3) of each of N pictures as the model made them, black to white."""
    # A model may say a little more than white, or less than black.
    shown = pictures_of(processor).to_pixels(made.float().cpu()).clamp(0, 1)
    pixels = (shown * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [each[:, :, 0] if each.shape[2] == 1 else each for each in pixels]


def arrange(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return one picture of rows of pictures of one size, with white between them."""
    height, width = rows[0][0].shape[:2]
    columns = max(map(len, rows))
    shape = (len(rows) * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    # White, so that dark pictures do not run into each other.
    sheet = np.full((*shape, *rows[0][0].shape[2:]), 255, np.uint8)
    for down, row in enumerate(rows):
        for across, each in enumerate(row):
            top = down * (height + _GAP)
            left = across * (width + _GAP)
            sheet[top : top + height, left : left + width] = each
    return sheet


def png_sheet(rows: Sequence[Tensor], processor: LabelProcessor) -> bytes:
    """Return a PNG with a row of pictures for each of (N, C, H, W)."""
    return encode_png(arrange([as_bytes(row, processor) for row in rows]))


def sheets(
    prompts: Sequence[Any], rows: Sequence[Tensor], processor: LabelProcessor
) -> list[Picture]:
    """Return a picture of the pictures (N, C, H, W) of each prompt, next to each other."""
    found = []
    for prompt, row in zip(prompts, rows, strict=True):
        facts = {"pictures": len(row)} if len(row) > 1 else {}
        pixels = arrange([as_bytes(row, processor)])
        found.append(Picture(pixels, {"prompt": str(prompt), **facts}))
    return found
