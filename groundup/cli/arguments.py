"""What is on the command line next to options: recipes, the data, and key=value overrides."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from groundup.core.errors import GroundupError
from groundup.core.settings import as_path
from groundup.recipe.raw import parse_overrides

__all__ = ["read_arguments", "read_numbers", "read_overrides", "take_data_settings"]

_RECIPES = (".yaml", ".yml")
_SETTING = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
# Of a recipe: a run has them for good, but other data may be written in another way.
_SECTIONS = (
    "checkpoints",
    "evaluation",
    "init",
    "logging",
    "machine",
    "model",
    "optim",
    "processor",
    "samples",
    "task",
    "training",
)


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
        elif not argument.endswith(_RECIPES) and as_path(argument).exists():
            data.append(argument)
        else:
            recipes.append(argument)  # what is wrong with one that is not there is said on reading
    chosen = parse_overrides(overrides)
    for path in data:
        if "data.path" in chosen:
            raise GroundupError(
                "data.path",
                f"is given twice: {chosen['data.path']} and {path}",
                "Give one file or folder",
            )
        chosen["data.path"] = path
    return recipes, chosen


def read_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Return the overrides of the one recipe that a verb takes.

    Raises:
        GroundupError: If there is anything else among them.
    """
    recipes, overrides = read_arguments(arguments)
    if recipes:
        is_recipe = recipes[0].endswith(_RECIPES)
        problem = "is a second recipe" if is_recipe else "is no file or folder, and no key=value"
        remedy = "Give one recipe" if is_recipe else "Correct it, or write key=value"
        raise GroundupError(recipes[0], problem, remedy)
    return overrides


def take_data_settings(
    arguments: Sequence[str], options: Collection[str]
) -> tuple[list[str], dict[str, Any]]:
    """Return arguments without the settings of the data among them, such as
    ``data.encoding=gb18030``, and these by name.

    Args:
        arguments: Prompts, files or runs.
        options: The verb's options by name, with underscores.

    Raises:
        GroundupError: If another setting is written as in a recipe.
    """
    kept: list[str] = []
    settings: list[str] = []
    for argument in arguments:
        found = _SETTING.fullmatch(argument)
        if found is None:
            kept.append(argument)
            continue
        key, value = found.groups()
        name = key.replace("-", "_")
        section, _, inner = key.partition(".")
        if section == "data" and inner:
            settings.append(f"{inner}={value}")
        elif name in options:
            remedy = f"Write --{name.replace('_', '-')} {value}"
            raise GroundupError(argument, f"{name} is an option of this command", remedy)
        elif name in ("encoding", "separator", "text_column", "label_column"):
            problem = f"{name} is a setting of the data"
            raise GroundupError(argument, problem, f"Write data.{name}={value}")
        elif section in _SECTIONS and inner:
            raise GroundupError(
                argument,
                "is a setting that the run was trained with, and stays; allowed: settings of the"
                " data that is read, such as data.encoding=gb18030",
                "Remove it, or train another run with it",
            )
        else:
            kept.append(argument)
    return kept, parse_overrides(settings)


def read_numbers(option: str, text: str) -> list[float]:
    """Return the numbers in the value of an option, which has commas between them.

    Raises:
        GroundupError: If one is no number.
    """
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            problem = f"{part.strip()!r} is no number; allowed: numbers with commas between them"
            raise GroundupError(option, problem, f"Write it so: {option} 0.7,0.3") from None
    return numbers
