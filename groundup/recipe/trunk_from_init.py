"""The trunk of a model that finds things in pictures, taken from a classifier's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError

__all__ = ["fill_trunk_section", "has_other_trunk"]

# Settings of a classifier that are the larger model's, as trunks have it.
_OWNERS = ("input_shape", "outputs")


def has_other_trunk(section: Any, base: str) -> bool:
    """Whether a recipe's model is one with a trunk, and the weights are of another model, which may
    be that trunk.

    Args:
        section: The recipe's, as it was written.
        base: The name of the model that the weights are of.
    """
    name = section.get("name") if isinstance(section, dict) else None
    if name is None or name == base or name not in registry.names("model"):
        return False
    return "backbone" in registry.lookup("model", str(name)).model_fields


def fill_trunk_section(
    raw: dict[str, Any], base: Mapping[str, Any], where: str, free: tuple[str, ...] | None = None
) -> None:
    """Fill ``model.backbone`` of a raw recipe with the classifier that the run starts from.

    Args:
        raw: The recipe, changed in place.
        base: The classifier's section.
        where: The setting that names the weights, for messages.
        free: What the recipe may say otherwise; None: anything, as shapes are compared later.

    Raises:
        RecipeError: If the trunk is another model, or is said otherwise; or an adapter is to be
            trained, for which all weights must be there.
    """
    model = raw["model"]
    kind = str(base["name"])
    given = model.get("backbone") or {}
    # What is no section is an error that the validation of the model says better.
    if not isinstance(given, dict):
        return
    if given.get("name", kind) != kind:
        raise RecipeError(
            "recipe.model.backbone.name",
            f"is {given['name']}, but the weights of {where} are of a {kind}",
            "Leave model.backbone out: it is then what the weights are",
        )
    if raw.get("adapter") is not None:
        raise RecipeError(
            "recipe.adapter",
            f"trains next to weights that are all there, but of {model['name']} only the trunk is",
            "Remove it; with init.train_layers: 0 the trunk stays as it is",
        )
    section = {key: value for key, value in base.items() if key not in _OWNERS}
    for key in given:
        there = section.get(key)
        if free is not None and key not in (*free, "name") and given[key] != there:
            raise RecipeError(
                f"recipe.model.backbone.{key}",
                f"is {given[key]}, but the weights have {there}",
                "Remove it: the weights say what the trunk is",
            )
    # With a name a section is the user's own as a whole, as a model's is.
    model["backbone"] = given if "name" in given and free is None else {**section, **given}
