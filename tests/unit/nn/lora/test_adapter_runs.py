"""Runs with adapters: what is trained, saved, merged and gone on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_adapters import TRAINED
from tiny_runs import MODELS, tiny_run
from typer.testing import CliRunner

import groundup
from groundup.cli.main import app
from groundup.nn import logits as output_layer
from groundup.nn import loss
from groundup.nn.lora.adapters import adapted
from groundup.recipe.adapter import Adapter
from groundup.recipe.recipe import load_recipe

OTHER: dict[str, Any] = {
    **{
        "name": "dora",
        "rank": 3,
        "alpha": 5.0,
        "rank_stabilized": True,
        "dropout": 0.3,
        "lora_plus_ratio": 4.0,
    },
    **{"targets": {"query": 2}, "path": None, "base": "int8", "double_quantization": False},
    **{"modules_to_save": ["norm"], "bias": "all", "trainable_token_indices": [3]},
}


def tuning(recipe: dict[str, Any], runs: Path, **adapter: Any) -> dict[str, Any]:
    """Train the recipe as a base, unless that was done, and return one that trains an adapter for
    it."""
    groundup.train(recipe, runs=runs)
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    init = {"run": str(runs / recipe["name"])}
    return {**kept, "name": "tuned", "init": init, "optim": {"lr": 3e-2}, "adapter": adapter}


# ----------------------------------------------------------------------------------------- the runs
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_only_the_adapter_is_trained_saved_and_given_moments(
    recipe: dict[str, Any], tmp_path: Path, name: str
) -> None:
    tuned = tuning(recipe, tmp_path, name=name, rank=2)
    run = groundup.train(tuned, runs=tmp_path)
    saved = run.checkpoints.load(run.pick("last"))
    parts = {key.rpartition(".")[2] for key in saved.model}
    assert parts == set(TRAINED[: 3 if name == "dora" else 2])
    assert {key.split("/")[0] for key in saved.optimizer} == set(saved.model)
    base = groundup.runs.run.Run.open(tmp_path / "small")
    weights = base.checkpoints.load(base.pick("last")).model
    assert saved.state["base"]["run"] == str(tmp_path / "small")
    trainer = groundup.trainer(tuned, runs=tmp_path)
    own = trainer.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in weights.items())
    assert all(p.grad is None for p in trainer.model.parameters() if not p.requires_grad)
    tokens = torch.randint(0, 200, (2, 16))
    predictor = groundup.load(run.folder, "last")
    assert not adapted(predictor.model)
    with torch.no_grad():
        expected = trainer.model.eval()(tokens)
        assert (predictor.model(tokens) - expected).abs().max() < 1e-4
        assert (groundup.load(base.folder, "last").model(tokens) - expected).abs().max() > 1e-3
    trainer.close()
    assert load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert "evaluation" in groundup.evaluate(run.folder, limit=1)["runs"][0]


@pytest.mark.slow
def test_several_adapters_on_one_base(recipe: dict[str, Any], tmp_path: Path) -> None:
    tuned = tuning(recipe, tmp_path, rank=2)
    first = groundup.train(tuned, runs=tmp_path).folder
    other = {
        **tuned,
        "name": "other",
        "seed": 5,
        "adapter": {"name": "dora", "rank": 3, "targets": ["mlp.*"]},
    }
    second = groundup.train(other, runs=tmp_path).folder
    tokens = torch.randint(0, 200, (2, 16))
    with torch.no_grad():
        plain = groundup.load(tmp_path / "small").model(tokens)
        predictor = groundup.load(tmp_path / "small", adapter=first)
        for folder in (first, second, first / "adapter"):
            predictor.use(folder)
            run = folder if folder.name != "adapter" else folder.parent
            assert (predictor.model(tokens) - groundup.load(run).model(tokens)).abs().max() < 1e-4
        predictor.use(None)
        assert torch.equal(predictor.model(tokens), plain)
    said = CliRunner().invoke(
        app,
        [
            "predict",
            str(tmp_path / "small"),
            "The ",
            "--adapter",
            str(first),
            "--max-new-tokens",
            "8",
        ],
    )
    assert said.exit_code == 0, said.output
    assert said.output.rstrip("\n") == groundup.predict(
        first, "The ", max_new_tokens=8, temperature=0.0
    ).rstrip("\n")


@pytest.mark.slow
def test_an_adapter_on_an_adapter_and_one_to_go_on_from(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    tuned = tuning(recipe, tmp_path, name="dora", rank=2, alpha=6.0)
    first = groundup.train(tuned, runs=tmp_path).folder
    tokens = torch.randint(0, 200, (2, 16))
    expected = groundup.load(first).model(tokens)
    upon = groundup.trainer({**tuned, "name": "upon", "init": {"run": str(first)}}, runs=tmp_path)
    assert (upon.model.eval()(tokens) - expected).abs().max() < 1e-4
    on = {**tuned, "name": "on", "adapter": {"path": str(first)}}
    going_on = groundup.trainer(on, runs=tmp_path)
    assert (going_on.model.eval()(tokens) - expected).abs().max() < 1e-4
    plain = groundup.load(groundup.train({**on, "name": "done"}, runs=tmp_path).folder).model(
        tokens
    )
    assert (plain - expected).abs().max() > 1e-3
    upon.fit()
    groundup.load(tmp_path / "upon").model(tokens)
    upon.close()
    going_on.close()


@pytest.mark.slow
def test_a_new_head_is_trained_and_saved_beside_the_adapter(tmp_path: Path) -> None:
    base = tiny_run("mlp", tmp_path, {"norm": "batch", "dropout": 0.0})
    base["data"] = {"name": "arrays", "labels": [0, 1, 2, 3, 4]}
    tuned = tuning(base, tmp_path, rank=3)
    tuned["data"] = {"name": "arrays", "labels": [5, 6, 7]}
    run = groundup.train({**tuned, "training": {"batch_size": 16, "steps": 150}}, runs=tmp_path)
    saved = run.checkpoints.load(run.pick("last")).model
    assert {"head.weight", "head.bias"} <= set(saved)
    assert not [name for name in saved if "running" in name]
    found = groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    assert found["accuracy"] > 0.8
    config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["head"]
    assert config["target_modules"] == ["blocks.0.0"]
    on = {**tuned, "name": "on", "adapter": {**tuned["adapter"], "path": str(run.folder)}}
    trainer = groundup.trainer(on, runs=tmp_path)
    own = trainer.model.state_dict()
    best = run.checkpoints.load(run.pick("best")).model
    assert all(torch.equal(own[name], value) for name, value in best.items())
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averaged_adapters_leave_the_statistics_of_the_base(tmp_path: Path, average: str) -> None:
    tuned = tuning(tiny_run("mlp", tmp_path, {"norm": "batch"}), tmp_path, rank=3)
    tuned["optim"] |= {"average": average}
    run = groundup.train(tuned, runs=tmp_path)
    trainer = groundup.trainer(tuned, runs=tmp_path)
    base = groundup.runs.run.Run.open(tmp_path / "tiny")
    weights = base.checkpoints.load(base.pick("last")).model
    own = trainer.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in weights.items() if "running" in key)
    assert groundup.evaluate(run.folder)["runs"][0]["evaluation"]["metrics"]
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "convnext", "vit", "transformer_classifier"])
def test_every_model_with_linear_layers(name: str, tmp_path: Path) -> None:
    assert name in MODELS
    reads = "frames" if name == "transformer_classifier" else ""
    tuned = tuning(tiny_run(name, tmp_path, reads=reads), tmp_path, rank=2)
    run = groundup.train(tuned, runs=tmp_path)
    trainer = groundup.trainer(tuned, runs=tmp_path)
    again = groundup.load(run.folder, "last")
    with torch.no_grad():
        batch = next(trainer.stream)
        inputs = trainer.task.inputs(batch)
        expected = trainer.model.eval()(**inputs)
        assert (again.model(**inputs) - expected).abs().max() < 1e-4
    trainer.close()


@pytest.mark.slow
@pytest.mark.parametrize("field", [field for field in OTHER if field != "path"])
def test_every_setting_has_an_effect(recipe: dict[str, Any], tmp_path: Path, field: str) -> None:
    assert set(OTHER) == set(Adapter.model_fields)
    if field == "bias":
        recipe["model"]["bias"] = "all"
    plain = tuning(recipe, tmp_path, rank=4)
    changed = {**plain, "adapter": {**plain["adapter"], field: OTHER[field]}}
    if field == "double_quantization":
        plain["adapter"]["base"] = changed["adapter"]["base"] = "nf4"
    if field == "targets":
        del changed["adapter"]["rank"]
    found = []
    for number, each in enumerate((plain, changed)):
        run = groundup.train({**each, "name": f"run{number}"}, runs=tmp_path)
        weights = load_file(run.folder / "model" / "model.safetensors")
        found.append([float(value.double().abs().sum()) for value in weights.values()])
        assert load_recipe(run.folder / "recipe.yaml").adapter == load_recipe(each).adapter
    assert found[0] != found[1]


@pytest.mark.slow
def test_a_frozen_output_layer_gets_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_layer, "_CHUNK_BYTES", 64 * 50 * 4)
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(200, 16, requires_grad=True),
        torch.randn(50, 16, requires_grad=True),
    )
    targets = torch.randint(50, (200,))
    (expected,) = torch.autograd.grad(
        loss.linear_cross_entropy_sum(hidden, weight, targets), hidden
    )
    frozen = weight.detach()
    (found,) = torch.autograd.grad(loss.linear_cross_entropy_sum(hidden, frozen, targets), hidden)
    assert torch.equal(found, expected)
    *_, of_weight = loss._chunked(hidden.detach(), frozen, targets, True, False)
    assert of_weight.numel() == 0
    torch.library.opcheck(loss._chunked, (hidden, frozen, targets, True, False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "dora"])
def test_in_double_precision_and_with_accumulation(
    recipe: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """A merged adapter in float64, and micro-batches that together are the whole batch."""
    recipe["model"]["dropout"] = 0.0
    tuned = tuning(recipe, tmp_path, name=name, rank=2)
    found = []
    for micro_batch_size in (4, 1):
        machine = {**recipe["machine"], "precision": "fp64", "micro_batch_size": micro_batch_size}
        run = groundup.train(
            {**tuned, "name": f"m{micro_batch_size}", "machine": machine}, runs=tmp_path
        )
        saved = run.checkpoints.load(run.pick("last")).model
        assert all(value.dtype == torch.float64 for value in saved.values())
        found.append(saved)
    assert all(
        torch.allclose(found[0][key], found[1][key], rtol=1e-9, atol=1e-9) for key in found[0]
    )
