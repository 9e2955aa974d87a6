"""``parallel.shard``: each process holds a part of every parameter."""

from __future__ import annotations

from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout

__all__ = ["divide_parameters"]


def divide_parameters(model: nn.Module, layout: Layout) -> nn.Module:
    """Return the model with this process's part of every parameter.

    Raises:
        RecipeError: Always, so far.
    """
    raise RecipeError(
        "recipe.parallel.shard",
        f"is {layout.shard}, but dividing the parameters of {type(model).__name__} is not there"
        " yet",
        "Remove it, or share the batch with replicate",
    )
