"""What a task sets where a recipe is silent: a classifier wants other defaults than a language
model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import Settings
from groundup.recipe.raw import section_of

__all__ = ["add_task_defaults"]


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
        raw.setdefault(part, {})
        section_of(raw, part).setdefault(setting, value)
