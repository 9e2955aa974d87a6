"""Files to start from: recipes, and parts of your own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from groundup.core.errors import RecipeError, did_you_mean

__all__ = ["KINDS", "write_template"]

KINDS = ("text", "chat", "model", "language_model", "task", "data", "processor")
_RECIPES = KINDS[:2]


def write_template(kind: str, path: Path) -> None:
    """Write the template of a kind to a new file.

    Raises:
        RecipeError: If there is no such template, its files end otherwise, or the file exists.
    """
    if kind not in KINDS:
        raise RecipeError(
            "--kind",
            f"{kind!r} is unknown; {did_you_mean(kind, KINDS)}allowed: {', '.join(KINDS)}",
            "Choose one",
        )
    suffix = ".yaml" if kind in _RECIPES else ".py"
    if (path.suffix == ".py") != (suffix == ".py"):
        raise RecipeError(
            str(path),
            f"ends in {path.suffix!r}, but a file of the kind {kind!r} ends in {suffix!r}",
            f"Write {path.with_suffix(suffix)}, or choose another --kind",
        )
    if suffix == ".py" and not path.stem.isidentifier():
        # It becomes the part's name, and tests import the file by it.
        raise RecipeError(
            str(path),
            f"is named {path.stem!r}, but a name has letters, digits and underscores",
            "Choose another name",
        )
    if path.exists():
        raise RecipeError(str(path), "exists already and was not touched", "Choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    template = suffix if kind in _RECIPES else ".py.txt"
    text = (resources.files("groundup.templates") / f"{kind}{template}").read_text(encoding="utf-8")
    path.write_text(text.replace("NAME", path.stem), encoding="utf-8")
