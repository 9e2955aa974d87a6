"""Every way of fine-tuning on every model that writes one sequence about another: it trains what it
should and nothing else, goes on after a stop to the last bit, and the adapter merged gives the same
outputs; or an error says why it is none for this model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finetuned_models import WRITERS, base_recipe, outputs_of
from resuming import stopped_and_resumed

import groundup
from groundup.core.errors import RecipeError
from groundup.nn.lora.adapters import LOW_RANK, merge
from groundup.nn.part_names import BLOCK
from groundup.recipe.recipe import as_dict
from groundup.runs.run import Run
from groundup.weights.initial_weights import weights_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

# The sections of a recipe that each way sets.
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "dropout": 0.1},
    "rslora": {"rank": 2, "rank_stabilized": True, "lora_plus_ratio": 4.0},
    "dora": {"name": "dora", "rank": 2},
    "nf4": {"rank": 2, "base": "nf4"},
    "int8": {"name": "dora", "rank": 2, "base": "int8"},
    "norms whole": {"rank": 2, "modules_to_save": ["*norm*"]},
    "rows": {"rank": 2, "trainable_token_indices": [3, 17]},
}
LAYERS: dict[str, dict[str, Any]] = {
    "last layers": {"init": {"train_layers": 1}},
    "unfreezing": {"init": {"unfreeze_every": 1}},
    "falling rates": {"optim": {"layer_decay": 0.5}},
}
# Ways that are none for a model, with what the error says.
NONE = {
    ("rows", "ctc"): "the model has no embedding",
    ("rows", "hub bart"): "which is also the output layer of this architecture",
    ("rows", "hub mt5"): "which is also the output layer of this architecture",
    ("teacher", "whisper"): "task transcribe cannot learn from a teacher",
    ("teacher", "ctc"): "task transcribe cannot learn from a teacher",
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = {}
    for name in WRITERS:
        folder = tmp_path_factory.mktemp("base")
        found[name] = groundup.train(base_recipe(name, folder), runs=folder)
    return found


def tuned_from(base: Run, way: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe of three steps from a base run."""
    recipe = as_dict(base.recipe)
    kept = {key: recipe[key] for key in ("task", "data", "machine")}
    init = {"run": str(base.folder), **way.get("init", {})}
    optim = {"lr": 1e-2, "weight_decay": 0.0, **way.get("optim", {})}
    training = {"batch_size": 16, "steps": 3}
    more = {key: value for key, value in way.items() if key not in ("init", "optim")}
    return {**kept, "name": "tuned", **more, "init": init, "optim": optim, "training": training}


def moved(base: Run, run: Run) -> set[str]:
    """Return the names of the tensors that are others than those of the base."""
    before = weights_of(base, base.pick("last"))
    after = weights_of(run, run.pick("last"))
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("model", WRITERS)
@pytest.mark.parametrize("way", ADAPTERS)
def test_adapters(bases: dict[str, Run], model: str, way: str, tmp_path: Path) -> None:
    base = bases[model]
    recipe = tuned_from(base, {"adapter": ADAPTERS[way]})
    if (way, model) in NONE:
        with pytest.raises(RecipeError, match=NONE[way, model]):
            groundup.trainer(recipe, runs=tmp_path)
        return
    end = stopped_and_resumed(recipe, tmp_path, (1, 3))
    whole = {name for name in end.model if name.rpartition(".")[2] not in LOW_RANK}
    if way == "norms whole":
        assert whole
        assert all("norm" in name for name in whole)
    else:
        assert {name for name in whole if not name.endswith(".rows")} == set()
    run = groundup.train(recipe, runs=tmp_path / "parts")
    adapted = {name.removesuffix(".lora_A") for name in end.model if name.endswith(".lora_A")}
    assert all(BLOCK.match(name) for name in adapted)
    # Of a base in few bits the weights are what these stand for.
    if "base" not in ADAPTERS[way]:
        rows = {name.removesuffix(".rows") for name in end.model if name.endswith(".rows")}
        expected = {f"{name}.weight" for name in adapted | rows} | whole
        changed = moved(base, run)
        assert changed <= expected
        assert len(changed) > 0.8 * len(expected)
    trained = groundup.load(run.folder).model
    before = outputs_of(run, trained)
    merge(trained)
    torch.testing.assert_close(outputs_of(run, trained), before, rtol=1e-4, atol=1e-4)
    plain = run.recipe.model.build()
    plain.load_state_dict(weights_of(run, run.pick("best")))
    torch.testing.assert_close(outputs_of(run, plain), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", WRITERS)
@pytest.mark.parametrize("way", LAYERS)
def test_layers(bases: dict[str, Run], model: str, way: str, tmp_path: Path) -> None:
    base = bases[model]
    recipe = tuned_from(base, LAYERS[way])
    stopped_and_resumed(recipe, tmp_path, (1, 3))
    run = groundup.train(recipe, runs=tmp_path / "parts")
    changed = moved(base, run)
    blocks = {int(found[1]) for name in changed if (found := BLOCK.match(name))}
    names = weights_of(base, base.pick("last"))
    last = max(int(found[1]) for name in names if (found := BLOCK.match(name)))
    if way == "falling rates":
        assert 0 in blocks
        assert any(name.startswith("embed") or "convolution" in name for name in changed) or (
            model == "ctc"
        )
        return
    # Three steps: the head, and a block more at each; or the last block and what follows it.
    reached = {last} if way == "last layers" else {last, last - 1, last - 2}
    assert last in blocks
    assert blocks <= reached
    assert not any(name.startswith("embed") for name in changed)


@pytest.mark.parametrize("model", WRITERS)
def test_a_teacher(bases: dict[str, Run], model: str, tmp_path: Path) -> None:
    base = bases[model]
    distill = {"teacher": str(base.folder), "weight": 0.5}
    recipe = tuned_from(base, {"distill": distill})
    if ("teacher", model) in NONE:
        with pytest.raises(RecipeError, match=NONE["teacher", model]):
            groundup.trainer(recipe, runs=tmp_path)
        return
    stopped_and_resumed(recipe, tmp_path, (1, 3))
    assert moved(base, groundup.train(recipe, runs=tmp_path / "parts"))


def test_lstms_have_no_adapters(tmp_path: Path) -> None:
    recipe = base_recipe("ctc", tmp_path)
    recipe["model"] = {"name": "ctc", "blocks": "bilstm", "layers": 1, "width": 12}
    base = groundup.train(recipe, runs=tmp_path)
    tuned = tuned_from(base, {"adapter": {"rank": 2}})
    with pytest.raises(RecipeError, match=r"no linear layer is called 'blocks\.\*'; .*: head"):
        groundup.trainer(tuned, runs=tmp_path)
