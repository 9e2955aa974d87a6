"""Which matrices are divided, into which parts, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run
from torch import nn

from groundup.core.errors import RecipeError
from groundup.models.cnn import CNNConfig
from groundup.models.gpt import GPTConfig
from groundup.parallel.holdings import Holdings
from groundup.parallel.layout import Layout
from groundup.parallel.parts import parts_of
from groundup.parallel.tensor import check_matrices, divide_matrices
from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import load_recipe

SHAPE: dict[str, Any] = {"vocabulary_size": 11, "width": 16, "layers": 1, "context_length": 8}


class _Mesh:
    """Nothing is exchanged while a model is divided."""

    def get_group(self, axis: str) -> None:
        assert axis == "tensor"


LAYOUT = Layout(tensor=2, mesh=_Mesh())  # type: ignore[arg-type]


def _divide(model: nn.Module, size: int, place: int = 0) -> nn.Module:
    return divide_matrices(model, Layout(tensor=size, rank=place, mesh=_Mesh()))  # type: ignore[arg-type]


def test_the_parts_of_all_processes_are_the_whole_tensors() -> None:
    config = GPTConfig(**SHAPE, heads=4, kv_heads=2, mlp_width=7, bias="all")
    whole = config.build().state_dict()
    models = []
    for place in range(2):
        model = config.build()
        model.load_state_dict(whole)
        models.append(_divide(model, 2, place))
    parts = parts_of(models[0])
    for name, tensor in whole.items():
        own = [model.state_dict()[name] for model in models]
        if name in parts:
            assert torch.equal(torch.cat(own, parts[name].dim), tensor), name
        else:
            assert all(torch.equal(each, tensor) for each in own), name
    kept = {name for name in whole if name not in parts}
    ends = ("norm.weight", "output.bias", "down.bias")
    assert all(name.endswith(ends) for name in kept)
    assert parts["embed.weight"].lengths == (6, 5)
    assert parts["blocks.0.mlp.down.weight"].lengths == (4, 3)
    assert parts["blocks.0.attention.key.weight"].lengths == (4, 4)


def test_channels_of_pictures_stay_together() -> None:
    config = CNNConfig(channels=(5,), hidden=(3,), input_shape=(1, 8, 8), outputs=4)
    parts = parts_of(_divide(config.build(), 2))
    assert parts["blocks.0.0.weight"].lengths == (3, 2)
    assert parts["blocks.1.0.weight"].lengths == (27, 18)  # 3 x 3 places each
    assert "head.weight" not in parts


def test_what_a_process_has_is_taken_from_whole_tensors() -> None:
    model = _divide(GPTConfig(**SHAPE, heads=2).build(), 2, place=1)
    holdings = Holdings.of(model, 2)
    whole = {"embed.weight": torch.arange(11.0)[:, None].expand(11, 16)}
    moments = {"embed.weight/exp_avg": whole["embed.weight"], "embed.weight/step": torch.tensor(3)}
    own = holdings.own(whole | moments | {"norm.weight/raw": torch.ones(16)})
    assert own["embed.weight"][:, 0].tolist() == [6, 7, 8, 9, 10]
    assert own["embed.weight/exp_avg"].shape == (5, 16)
    assert own["embed.weight/step"] == 3
    assert len(own["norm.weight/raw"]) == 16
    norm = model.get_parameter("norm.weight")
    embedding = model.get_parameter("embed.weight")
    assert (holdings.repeats(norm), holdings.repeats(embedding)) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        ({"heads": 4, "kv_heads": 1}, 2, "is 2, which does not divide the 1 of model.kv_heads"),
        ({"heads": 2}, 3, "is 3, which does not divide the 2 of model.heads"),
        ({"heads": 2, "mlp_width": 1}, 2, "is 2, but model.mlp_width is 1"),
    ],
)
def test_what_cannot_be_shared(settings: dict[str, Any], size: int, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe.parallel.tensor: {said}.*Use "):
        _divide(GPTConfig(**SHAPE, **settings).build(), size)


def test_models_that_are_not_known() -> None:
    said = "how to divide the matrices of Linear is not known; it is of BERT, CNN, DecoderLM"
    with pytest.raises(RecipeError, match=rf"recipe.parallel.tensor: is 2, but {said}.*shard"):
        _divide(nn.Linear(2, 2), 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim.name": "muon"}, r"recipe.optim.name: is muon.* parallel.tensor 2 divides them"),
        ({"model.heads": 3, "model.width": 12}, "is 2, which does not divide the 3 of model.heads"),
    ],
)
def test_recipes_are_checked_before_anything_is_built(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    recipe = load_recipe(tiny_run("gpt", tmp_path, {"vocabulary_size": 11}), changes)
    with pytest.raises(RecipeError, match=said):
        check_matrices(recipe, LAYOUT)


def test_adapters_are_not_divided(tmp_path: Path) -> None:
    recipe = load_recipe(tiny_run("gpt", tmp_path, {"vocabulary_size": 11}))
    adapted = recipe.model_copy(update={"adapter": Adapter(name="lora", rank=2)})
    said = r"parallel.tensor: is 2, but layers with an adapter .* \(recipe.adapter\) are not"
    with pytest.raises(RecipeError, match=said):
        check_matrices(adapted, LAYOUT)


def test_a_check_divides_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(tiny_run("gpt", tmp_path, {"vocabulary_size": 11}))
    before = recipe.model
    check_matrices(recipe, LAYOUT)
    assert recipe.model == before
