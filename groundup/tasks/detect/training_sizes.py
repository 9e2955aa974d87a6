"""Whether a detector reads pictures of all sizes that it is to be trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from groundup.core.errors import RecipeError
from groundup.generation.scoring import device_of, evaluating
from groundup.media.augmentation.training_sizes import Size

__all__ = ["check_sizes"]


def check_sizes(model: nn.Module, channels: int, sizes: Sequence[Size]) -> None:
    """Try a black picture of each size: what a model can read is not declared anywhere.

    Raises:
        RecipeError: If one cannot be read.
    """
    with evaluating(model):
        for size in sizes:
            try:
                model(inputs=torch.zeros(1, channels, *size, device=device_of(model)))
            except (RuntimeError, ValueError, IndexError) as error:
                reason = str(error).splitlines()[0][:120]
                raise RecipeError(
                    "recipe.task.augmentation.sizes",
                    f"{size[0]} x {size[1]} pixels cannot be read by {type(model).__name__}:"
                    f" {reason}",
                    "Use multiples of the coarsest map's stride; a vit reads one size alone",
                ) from None
