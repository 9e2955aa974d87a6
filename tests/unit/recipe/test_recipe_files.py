"""The recipes that come with the project can be read: no key is unknown and no value of a wrong
type."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.recipe.recipe import Recipe, load_recipe
from groundup.recipe.yaml import parse_yaml

ROOT = Path(__file__).parents[3] / "recipes"
FILES = sorted(ROOT.rglob("*.yaml"))


@pytest.fixture(scope="module")
def before() -> dict[str, Recipe]:
    """Return the recipes that need no run of another one, by the folder that they would make."""
    texts = {path: parse_yaml(path.read_text(encoding="utf-8"), str(path)) for path in FILES}
    first = (
        load_recipe(path)
        for path, text in texts.items()
        if not {"run", "pretrained"} & set(text.get("init", {}))
    )
    return {f"runs/{recipe.name}": recipe for recipe in first}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path: Path, before: dict[str, Recipe]) -> None:
    Path("config.json").write_text(
        '{"model_type": "bert", "max_position_embeddings": 2048}', encoding="utf-8"
    )  # in place of the hub
    init = parse_yaml(path.read_text(encoding="utf-8"), str(path)).get("init", {})
    given = {"init.pretrained": "."} if "pretrained" in init else None
    recipe = load_recipe(
        path, given, planned=dict(before)
    )  # in a folder of its own, where no runs are
    assert recipe.about
