"""The sections of a recipe that describe tasks within a task."""

from __future__ import annotations

import re
from typing import Any

from groundup.contracts.tasks import Task
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.recipe.recipe import without_effect
from groundup.tasks.language_modeling import LanguageModeling

__all__ = ["build_task", "dump_task"]


def dump_task(part: Task) -> dict[str, Any]:
    """Return the section that describes a task, without settings that have no effect."""
    settings = part.model_dump(mode="json", exclude=without_effect(part))
    return {"name": type(part).registered_name, **settings}


def build_task(name: str, section: Any, own: type[Task]) -> Task:
    """Return the task that a section of a recipe describes.

    Args:
        name: The user's name for it.
        section: Its settings, or its name alone.
        own: The class of a task of several tasks, of which no task may be one.

    Raises:
        RecipeError: If it is not a task, or not one that can share a model with others.
    """
    where = f"recipe.task.tasks.{name}"
    # Names become parts of metric names, with a slash after them.
    if not re.fullmatch(r"[\w\-]+", name):
        raise RecipeError(where, "is no name; allowed: letters, digits, _ and -", "Rename it")
    section = {"name": section} if isinstance(section, str) else section
    if not isinstance(section, dict) or "name" not in section:
        raise RecipeError(
            f"{where}.name", "is required and missing", "Name a task, such as classify"
        )
    kind = str(section["name"])
    settings = {key: value for key, value in section.items() if key != "name"}
    made: Task = validate(registry.lookup("task", kind, f"{where}.name"), settings, where)
    if not isinstance(made, LanguageModeling) and (
        made.unit != "examples" or isinstance(made, own)
    ):
        raise RecipeError(
            f"{where}.name",
            f"is {kind}, which does not predict from the features of an example",
            "Choose a task such as classify",
        )
    # Two tasks could ask for different changes of the same input.
    if made.augments:
        raise RecipeError(
            where,
            "augments its examples, which has no effect within multitask",
            "Turn its augmentation off",
        )
    return made
