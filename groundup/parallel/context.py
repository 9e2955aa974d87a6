"""``parallel.context``: the tokens of a text are divided between processes."""

from __future__ import annotations

from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout

__all__ = ["divide_texts"]


def divide_texts(model: nn.Module, layout: Layout) -> nn.Module:
    """Return the model reading this process's part of every text.

    Raises:
        RecipeError: Always, so far.
    """
    raise RecipeError(
        "recipe.parallel.context",
        f"is {layout.context}, but dividing the texts of {type(model).__name__} is not there yet",
        "Remove it, or share the batch with replicate",
    )
