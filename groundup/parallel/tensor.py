"""``parallel.tensor``: the matrices of a layer are divided between processes."""

from __future__ import annotations

from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout

__all__ = ["divide_matrices"]


def divide_matrices(model: nn.Module, layout: Layout) -> nn.Module:
    """Return the model with this process's part of every matrix.

    Raises:
        RecipeError: Always, so far.
    """
    raise RecipeError(
        "recipe.parallel.tensor",
        f"is {layout.tensor}, but dividing the matrices of {type(model).__name__} is not there yet",
        "Remove it, or share the batch with replicate",
    )
