"""``model.size``: a published shape by its name, in place of its settings."""

from __future__ import annotations

from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.recipe.raw import section_of

__all__ = ["fill_in_size"]


def fill_in_size(raw: dict[str, Any]) -> None:
    """Put the settings of the named size into the model section of a raw recipe, changed in place.

    Other keys of the section count more. What the data decides, such as the vocabulary, stays open.

    Raises:
        RecipeError: If the model has no such size.
    """
    section = section_of(raw, "model")
    if "size" not in section:
        return
    where = "recipe.model.size"
    if "name" not in section:
        raise RecipeError(where, "says nothing without a model", "Add model.name, such as gpt")
    cls = registry.lookup("model", str(section["name"]), "recipe.model.name")
    if "size" in cls.model_fields:  # a user's model has a setting of that name
        return
    sizes = cls.sizes()
    size = section["size"]
    if size not in sizes:
        known = ", ".join(sizes) or "none"
        near = did_you_mean(str(size), sizes)
        problem = f"{section['name']} has no size {size!r}; {near}known: {known}"
        raise RecipeError(where, problem, "Choose one of these, or give the settings themselves")
    settings = sizes[size].model_dump(
        mode="json", exclude_unset=True, exclude=set(cls.decided_by_data)
    )
    own = {key: value for key, value in section.items() if key != "size"}
    raw["model"] = {**settings, **own}
