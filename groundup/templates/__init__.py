"""Files to start from: recipes, and parts of your own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from groundup.core.errors import RecipeError, did_you_mean

__all__ = ["KINDS", "write_recipe_for", "write_template"]

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
    is_recipe = kind in _RECIPES
    suffix = ".yaml" if is_recipe else ".py"
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
    template = ".yaml" if is_recipe else ".py.txt"  # as .py, tools would take it for code
    text = (resources.files("groundup.templates") / f"{kind}{template}").read_text(encoding="utf-8")
    _write_new(path, text.replace("NAME", path.stem))


def write_recipe_for(data: Path, path: Path, label: str | None = None) -> None:
    """Look at data and write a recipe that fits it to a new file.

    Args:
        data: A file or folder.
        path: The recipe to write.
        label: The column to predict, where several could be it.

    Raises:
        RecipeError: If the file is no recipe's, or exists.
        DataError: If the data cannot be read, is nothing known, or several columns could be the
            label.
    """
    # Here, because it reads tables, pictures and sounds, which a template does not need.
    from groundup.templates.recipe_for_data import recipe_for_data

    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            str(path),
            f"ends in {path.suffix!r}, but a recipe ends in '.yaml'",
            f"Write {path.with_suffix('.yaml')}",
        )
    _write_new(path, recipe_for_data(path.stem, data, label))


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        raise RecipeError(str(path), "exists already and was not touched", "Choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
