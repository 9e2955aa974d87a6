"""Recipes to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from groundup.core.errors import RecipeError, did_you_mean

__all__ = ["KINDS", "write_template"]

KINDS = ("text", "chat")


def write_template(kind: str, path: Path) -> None:
    """Write the template of a kind to a new file.

    Raises:
        RecipeError: If there is no such template, or the file exists.
    """
    if kind not in KINDS:
        raise RecipeError(
            "--kind",
            f"{kind!r} is unknown; {did_you_mean(kind, KINDS)}allowed: {', '.join(KINDS)}",
            "Choose one",
        )
    if path.exists():
        raise RecipeError(str(path), "exists already and was not touched", "Choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (resources.files("groundup.templates") / f"{kind}.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("NAME", path.stem), encoding="utf-8")
