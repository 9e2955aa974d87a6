"""The recipes that come with the project can be read: no key is unknown and no value of a wrong
type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import RecipeError
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
    # in place of the hub
    config: dict[str, Any] = {"model_type": "bert", "max_position_embeddings": 2048}
    if path.stem.startswith("whisper"):
        config = {"model_type": "whisper"}
        frames = '{"feature_extractor_type": "WhisperFeatureExtractor"}'
        Path("preprocessor_config.json").write_text(frames, encoding="utf-8")
    Path("config.json").write_text(json.dumps(config), encoding="utf-8")
    init = parse_yaml(path.read_text(encoding="utf-8"), str(path)).get("init", {})
    given = {"init.pretrained": "."} if "pretrained" in init else None
    recipe = load_recipe(
        path, given, planned=dict(before)
    )  # in a folder of its own, where no runs are
    assert recipe.about


def test_what_is_no_recipe_but_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"is data, and no recipe. Make one: groundup new .*csv"):
        load_recipe(tmp_path / "rows.csv")
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match=r"is the folder of a run. Give .*recipe\.yaml"):
        load_recipe(tmp_path)
