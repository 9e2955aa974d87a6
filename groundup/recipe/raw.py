"""Raw recipes: nested dictionaries as YAML gives them, before anything is validated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.recipe.yaml import parse_yaml

__all__ = ["PLUGINS", "apply_overrides", "parse_overrides", "read_raw", "section_of"]

PLUGINS: tuple[registry.Kind, ...] = ("model", "task", "data", "processor")


def read_raw(source: str | Path | dict[str, Any]) -> tuple[dict[str, Any], Path, str]:
    """Return a recipe as it was written, the folder that its paths are relative to, and its name
    for messages.

    Raises:
        RecipeError: If there is no such file, or it is no YAML with keys.
    """
    if isinstance(source, dict):
        # A copy of its own, because sections are filled in place; through JSON, so that what YAML
        # could not hold is refused here and not in the middle of a run.
        raw, folder, where = json.loads(json.dumps(source)), Path(), "recipe"
    else:
        path = Path(source)
        raw, folder, where = _read_file(path), path.parent, str(path)
    for kind in PLUGINS:
        if isinstance(raw.get(kind), str):  # the short form: task: classify
            raw[kind] = {"name": raw[kind]}
    return raw, folder, where


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = [str(near) for near in sorted(path.parent.glob("*.yaml"))]
        hint = did_you_mean(str(path), nearby)
        problem = f"no such recipe; {hint}recipes there: {', '.join(nearby) or 'none'}"
        raise RecipeError(str(path), problem, "Give the path of a YAML file")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise RecipeError(str(path), problem, "Save it as UTF-8") from None
    if not isinstance(raw, dict):
        raise RecipeError(str(path), "holds no keys", "Start from: groundup new")
    return raw


def section_of(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section of a raw recipe; an empty one where there is none, or something else, about
    which validation has the better words."""
    section = raw.get(key)
    return section if isinstance(section, dict) else {}


# ---------------------------------------------------------------------------------------- overrides
def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optim.lr=3e-4"]`` into ``{"optim.lr": 0.0003}``; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problem = "is not of the form key=value"
            raise RecipeError(override, problem, "Write for example optim.lr=3e-4")
        parsed[key] = parse_yaml(value, override)
    return parsed


def apply_overrides(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Set dotted keys of a raw recipe, in place.

    Raises:
        RecipeError: If a key leads through something that is no section.
    """
    for key, value in overrides.items():
        *path, last = key.split(".")
        section = raw
        for part in path:
            # An override may be the first to speak of a section.
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                problem = f"{part!r} is a value, not a section"
                raise RecipeError(f"recipe.{key}", problem, "Check the key")
        if not path and last in PLUGINS and isinstance(value, str):
            value = {"name": value}  # task=classify, as in a file
        section[last] = value
