"""What is gathered together of a model, and which recipes cannot be divided so."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from groundup.core.errors import RecipeError
from groundup.parallel.shard import check_shards, find_units
from groundup.recipe.recipe import load_recipe
from groundup.recipe.sections import Init


def test_the_members_of_a_list_of_layers_are_gathered_one_by_one() -> None:
    model = nn.Module()
    model.embed = nn.Embedding(10, 8)
    model.blocks = nn.ModuleList(
        nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(3)
    )
    model.head = nn.Linear(8, 10)
    assert find_units(model) == list(model.blocks)


def test_lists_within_lists_are_looked_into() -> None:
    inner = [nn.Linear(8, 8) for _ in range(4)]
    model = nn.Module()
    model.levels = nn.ModuleList([nn.ModuleList(inner[:2]), nn.ModuleList(inner[2:])])
    assert find_units(model) == inner


def test_what_is_shared_or_small_is_gathered_with_the_rest() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(40, 40), nn.Linear(40, 40), nn.LayerNorm(2)])
    model.blocks[1].weight = model.blocks[0].weight
    assert find_units(model) == []
    # The same layer twice is one layer.
    layer = nn.Linear(4, 4)
    assert find_units(nn.Sequential(layer, nn.GELU(), layer)) == [layer]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"optim.name": "muon"},
            "recipe.parallel.shard: is 2, but recipe.optim.name is muon, which needs whole"
            " matrices. Use adamw, or share the batch with replicate.",
        ),
        (
            {"machine.precision": "fp64"},
            "recipe.parallel.shard: is 2, but machine.precision is fp64, which is for checks on one"
            " process. Remove it, or share the batch with replicate.",
        ),
        (
            {"init": Init(unfreeze_every=5)},
            "recipe.parallel.shard: is 2, but recipe.init.unfreeze_every changes in mid-run which"
            " parameters are trained. Remove it, or share the batch with replicate.",
        ),
        (
            {"parallel.offload": True},
            "recipe.parallel.offload: moves parameters from a GPU to the CPU, but machine.device is"
            " cpu. Remove it.",
        ),
    ],
)
def test_what_cannot_be_divided(changes: dict[str, Any], said: str) -> None:
    recipe = {
        "name": "divided",
        "model": {"name": "mlp", "hidden": [8]},
        "task": "classify",
        "processor": "image",
        "data": "arrays",
        "training": {"batch_size": 16, "steps": 4},
        "machine": {"device": "cpu"},
        "parallel": {"shard": 2},
    }
    sections = {key: value for key, value in changes.items() if isinstance(value, Init)}
    given = {key: value for key, value in changes.items() if key not in sections}
    loaded = load_recipe(recipe, given).model_copy(update=sections)
    with pytest.raises(RecipeError) as caught:
        check_shards(loaded)
    assert str(caught.value) == said
