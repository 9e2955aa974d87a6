"""What recommenders ask of the data: how many users and items there are."""

from __future__ import annotations

from groundup.contracts.processors import Processor
from groundup.contracts.recommendation import RecommendationSizes, RecommenderProcessor
from groundup.core.errors import RecipeError
from groundup.models.sizes_from_data import settle_size

__all__ = ["require_catalogue", "settle_catalogue"]


def settle_catalogue(
    model: str, processor: Processor, items: int, users: int | None = None
) -> RecommendationSizes:
    """Return the data's sizes.

    Args:
        model: The name of the model.
        processor: The run's.
        items: What the recipe says, 0 for nothing.
        users: Likewise; None where the model knows no users.

    Raises:
        RecipeError: If the processor knows no users and items, or the sizes differ.
    """
    if not isinstance(processor, RecommenderProcessor):
        raise RecipeError(
            "recipe.processor",
            f"knows no users and items, which model {model} scores",
            "Set processor: interactions",
        )
    settle_size("items", items, processor.sizes.items)
    if users is not None:
        settle_size("users", users, processor.sizes.users)
    return processor.sizes


def require_catalogue(items: int, users: int | None = None) -> None:
    """Check that it is known how many items, and users, there are.

    Raises:
        RecipeError: If not.
    """
    if not items or users == 0:
        raise RecipeError(
            "recipe.model",
            "users or items are 0, but no data has filled them in",
            "Give both",
        )
