"""``parallel.pipeline``: the layers of a model are divided between processes."""

from __future__ import annotations

from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout

__all__ = ["take_stage"]


def take_stage(model: nn.Module, layout: Layout) -> nn.Module:
    """Return the layers of this process.

    Raises:
        RecipeError: Always, so far.
    """
    raise RecipeError(
        "recipe.parallel.pipeline",
        f"is {layout.pipeline}, but dividing the layers of {type(model).__name__} is not there yet",
        "Remove it, or share the batch with replicate",
    )
