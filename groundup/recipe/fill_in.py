"""What a recipe need not say: the settings of a model's published size, and what its task sets.

A classifier wants other defaults than a language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.core.settings import Settings
from groundup.recipe.raw import section_of

__all__ = ["add_task_defaults", "fill_in_size"]


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


def add_task_defaults(raw: dict[str, Any], sections: Mapping[str, type[Settings]]) -> None:
    """Fill what a raw recipe leaves out with the ``default_settings`` of its task, in place.

    They are written into the recipe, so that a run's own recipe says all that it was trained with.

    Args:
        raw: The recipe as it was written.
        sections: The sections that a task may have defaults for, by name.

    Raises:
        RecipeError: If a task has a default for a setting that there is not.
    """
    name = section_of(raw, "task").get("name")
    if name not in registry.names("task"):
        return  # what is wrong with it is said where the section is validated
    for key, value in registry.lookup("task", name).default_settings.items():
        part, _, setting = key.partition(".")
        if part not in sections or setting not in sections[part].model_fields:
            problem = f"has a default for {key!r}, which is no setting of a recipe's"
            raise RecipeError(f"task {name}", problem, "Correct its default_settings")
        raw.setdefault(part, {})  # a section that is something else stays, for its error
        section_of(raw, part).setdefault(setting, value)
