"""What is on the command line next to options: recipes, the data, and key=value overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError
from groundup.recipe.raw import parse_overrides

__all__ = ["read_arguments"]

_RECIPES = (".yaml", ".yml")


def read_arguments(arguments: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """Return recipes, in order, and overrides; a file or folder that is no recipe is the
    ``data.path``.

    Raises:
        GroundupError: If the data is given twice.
    """
    recipes: list[str] = []
    data: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        # First, because the value of an override may itself end like a recipe, or be a path.
        if "=" in argument:
            overrides.append(argument)
        elif not argument.endswith(_RECIPES) and Path(argument).exists():
            data.append(argument)
        else:
            recipes.append(argument)  # what is wrong with one that is not there is said on reading
    chosen = parse_overrides(overrides)
    for path in data:
        if "data.path" in chosen:
            problem = f"is given twice: {chosen['data.path']} and {path}"
            raise GroundupError("data.path", problem, "Give one file or folder")
        chosen["data.path"] = path
    return recipes, chosen
