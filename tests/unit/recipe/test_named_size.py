"""``model.size``: a published shape by its name."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.core.errors import RecipeError
from groundup.models.gpt import GPTConfig
from groundup.recipe.json_schema import recipe_schema
from groundup.recipe.recipe import Recipe, as_dict, load_recipe


def load(model: Any, overrides: dict[str, Any] | None = None) -> Recipe:
    recipe = {
        "name": "x",
        "model": model,
        "task": "language_modeling",
        "data": {"name": "text", "path": "x"},
        "processor": "bytes",
        "training": {"steps": 1},
    }
    return load_recipe(recipe, overrides)


def test_a_recipe_names_a_published_size_and_changes_some_of_it() -> None:
    found = load(
        {"name": "gpt", "size": "gpt2-medium", "dropout": 0.1, "context_length": 512}
    ).model
    assert isinstance(found, GPTConfig)
    assert (found.layers, found.width, found.heads) == (24, 1024, 16)
    assert (found.positions, found.norm, found.bias) == ("learned", "layernorm", "all")
    assert (found.dropout, found.context_length) == (0.1, 512)


def test_what_the_data_decides_stays_open() -> None:
    assert load({"name": "gpt", "size": "gpt2"}).model.vocabulary_size == 0  # type: ignore[attr-defined]
    found: Any = load({"name": "resnet", "size": "resnet-18"}).model
    assert (found.layers, found.outputs, found.input_shape) == ((2, 2, 2, 2), 0, None)


def test_the_size_may_come_from_the_command_line() -> None:
    found = load("gpt", {"model.size": "llama3.2-1b"})
    assert found.model.rope_scaling.factor == 32  # type: ignore[attr-defined]
    assert "size" not in as_dict(found)["model"]
    assert load_recipe(as_dict(found)) == found


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "gpt", "size": "gpt2-medum"},
            r"recipe\.model\.size: gpt has no size 'gpt2-medum'; did you mean 'gpt2-medium'\? known:"
            r" nano, .*mistral-7b\. Choose one of these",
        ),
        ({"name": "mlp", "size": "big"}, "mlp has no size 'big'; known: none"),
        ({"size": "gpt2"}, r"recipe\.model\.size: says nothing without a model\. Add model\.name"),
        ({"name": "gtp", "size": "gpt2"}, "there is no model 'gtp'; did you mean 'gpt'"),
    ],
)
def test_a_size_that_there_is_not(model: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(model)


@pytest.mark.slow
def test_the_schema_lists_the_sizes() -> None:
    choices = recipe_schema()["properties"]["model"]["anyOf"]
    sizes = {
        choice["properties"]["name"]["const"]: choice["properties"].get("size", {}).get("enum")
        for choice in choices
    }
    assert sizes["vit"] == ["vit-tiny", "vit-small", "vit-base"]
    assert sizes["mlp"] is None
