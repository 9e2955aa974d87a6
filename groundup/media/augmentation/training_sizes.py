"""Pictures with boxes brought to another size, drawn anew for every so many samples.

Shape legend: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from groundup.core.errors import RecipeError
from groundup.core.values import Batch
from groundup.media.augmentation.draws import Draws

__all__ = ["Size", "draw_size", "resize_batch"]

Size = tuple[int, int]
"""Height and width in pixels."""


def draw_size(sizes: Sequence[Size], every: int, draws: Draws) -> Size:
    """Return the size of the pictures of a micro-batch: that of its samples' numbers.

    Args:
        sizes: What is drawn from.
        every: Samples n * every to (n + 1) * every - 1 have the same size.
        draws: Keyed by the samples.

    Raises:
        RecipeError: If the micro-batch has samples of several sizes.
    """
    blocks = np.unique(draws.samples // every)
    if len(blocks) > 1:
        raise RecipeError(
            "recipe.task.augmentation.size_every",
            f"is {every}, but a micro-batch holds samples {draws.samples[0]} to"
            f" {draws.samples[-1]}, of several sizes",
            "Set it to training.batch_size, or a multiple of it",
        )
    # By the block's number, not the step's: the same sample has its size whatever the batches are.
    chance = float(replace(draws, samples=blocks)("size")[0, 0])
    return sizes[int(chance * len(sizes))]


def resize_batch(batch: Batch, size: Size) -> Batch:
    """Return the pictures of a batch at a size, their boxes with them."""
    inputs = batch["inputs"]
    height, width = inputs.shape[2:]
    if size == (height, width):
        return batch
    resized = F.interpolate(inputs, size, mode="bilinear", antialias=True)
    factors = torch.tensor([size[1] / width, size[0] / height] * 2)
    found = {**batch, "inputs": resized}
    # Scale and offset of a frame, and the corners of boxes, all have x before y.
    for name in ("boxes", "frame", "picture"):
        if name in batch:
            found[name] = batch[name] * factors.to(batch[name].dtype)
    return found
