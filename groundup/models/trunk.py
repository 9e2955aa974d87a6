"""The trunk of a model that finds things in pictures: a classifier's layers, without its head."""

from __future__ import annotations

from typing import Any

from groundup.contracts.classifier_models import FeatureMaps
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import validate

__all__ = ["trunk_settings"]


def trunk_settings(section: dict[str, Any], shape: tuple[int, int, int] | None, owner: str) -> Any:
    """Return the settings of a trunk.

    Args:
        section: Of a model of pictures, with its name.
        shape: Channels, height and width of the pictures, where that is known.
        owner: The model that has the trunk, for messages.

    Raises:
        RecipeError: If they are not of a model with feature maps, or one of them is wrong.
    """
    where = "recipe.model.backbone"
    rest = dict(section)
    if "name" not in rest:
        raise RecipeError(f"{where}.name", "is required and missing", "Write {name: resnet}")
    name = str(rest.pop("name"))
    for key in ("input_shape", "outputs"):
        if key in rest:
            raise RecipeError(f"{where}.{key}", f"is the {owner}'s", "Remove it")
    found: Any = validate(registry.lookup("model", name, f"{where}.name"), rest, where)
    if not isinstance(found, FeatureMaps):
        raise RecipeError(
            f"{where}.name",
            f"is {name}, which has no feature maps",
            "Choose resnet, convnext or vit",
        )
    # An output is built and thrown away: the trunk ends in maps.
    settings: Any = found
    return settings.model_copy(update={"input_shape": shape, "outputs": 1})
