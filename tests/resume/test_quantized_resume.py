"""A run with an adapter beside a quantized base: what is saved, resumed, judged and merged is what
was trained."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import stopped_and_resumed
from safetensors import safe_open
from safetensors.torch import load_file

import groundup
from groundup.nn.lora.adapters import adapted
from groundup.nn.lowbit.nf4 import quantized_shapes

KEPT = {"int8": "int8", "nf4": "nf4, doubly quantised"}


def tuning(recipe: dict[str, Any], runs: Path, **adapter: Any) -> dict[str, Any]:
    """Train the recipe as a base, unless that was done, and return one that trains an adapter
    beside it, quantized."""
    groundup.train({**recipe, "training": {"batch_size": 4, "steps": 1}}, runs=runs)
    kept = {key: value for key, value in recipe.items() if key not in ("model", "processor")}
    init = {"run": str(runs / recipe["name"])}
    return {
        **kept,
        "name": "tuned",
        "init": init,
        "optim": {"lr": 3e-2},
        "adapter": {"rank": 2, **adapter},
    }


@pytest.mark.slow
@pytest.mark.parametrize("base", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_stopped_and_resumed(recipe: dict[str, Any], tmp_path: Path, name: str, base: str) -> None:
    tuned = tuning(recipe, tmp_path, name=name, base=base, dropout=0.2)
    tuned |= {"optim": {"lr": 1e-2, "average": "ema"}, "training": {"batch_size": 4, "steps": 3}}
    end = stopped_and_resumed(
        tuned | {"machine": {**recipe["machine"], "micro_batch_size": 2}}, tmp_path, (1, 3)
    )
    parts = {key.rpartition(".")[2] for key in end.model}
    assert parts == {"lora_A", "lora_B", *(["magnitude"] if name == "dora" else [])}
    assert {key.split("/")[0] for key in end.optimizer} == set(end.model)
    assert end.state["base"]["quantised"] == KEPT[base]


@pytest.mark.slow
def test_from_the_base_to_the_merged_model(
    recipe: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = tuning(recipe, tmp_path, base="nf4")
    run = groundup.train(tuned, runs=tmp_path)
    trainer = groundup.trainer(tuned, runs=tmp_path)
    tokens = torch.randint(0, 200, (2, 16))
    predictor = groundup.load(run.folder, "last")
    layers = quantized_shapes(predictor.model)
    assert len(layers) == 2 * 7
    assert set(layers) == set(adapted(predictor.model))
    with torch.no_grad():
        expected = trainer.model.eval()(tokens)
        assert torch.equal(predictor.model(tokens), expected)
        base = groundup.load(tmp_path / "small", "last")
        assert (base.model(tokens) - expected).abs().max() > 1e-3
        model = run.recipe.model.build().eval()
        model.load_state_dict(groundup.weights.initial_weights.weights_of(run, run.pick("last")))
        assert (model(tokens) - expected).abs().max() < 1e-5

        facts = run.read_json("environment.json")["quantised_base"]
        assert facts["kind"] == "nf4, doubly quantised"
        plain = sum(rows * columns * 4 for rows, columns in layers.values())
        assert (facts["layers"], facts["layers_bytes_fp32"]) == (len(layers), plain)
        others = sum(value.nbytes for value in trainer.model.state_dict().values())
        assert facts["model_bytes_fp32"] == plain + others
        said = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
        assert "14 linear layers are kept in nf4, doubly quantised" in said
        card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
        assert (
            "trained beside the base in nf4, doubly quantised; merged, in float32, into what that"
            " stands for" in card
        )
        with safe_open(run.folder / "adapter" / "adapter_model.safetensors", "pt") as file:
            assert file.metadata()["base_quantised"] == "nf4, doubly quantised"

        caplog.set_level(logging.WARNING, "groundup")
        base.use(run.folder)
        assert (
            "was trained next to a base in nf4, doubly quantised; next to one in fp32 it works a"
            " little" in caplog.text
        )
        assert (base.model(tokens) - expected).abs().max() > 1e-4
        predictor.use(None)
        assert not quantized_shapes(predictor.model)
        assert (predictor.model(tokens) - expected).abs().max() < 1e-5
        trainer.close()

        on = {**tuned, "name": "on", "adapter": {**tuned["adapter"], "path": str(run.folder)}}
        going_on = groundup.trainer(on, runs=tmp_path)
        saved = load_file(run.checkpoints.path(run.pick("best")) / "model.safetensors")
        own = going_on.model.state_dict()
        assert all(torch.equal(own[key], value) for key, value in saved.items())
        going_on.close()


@pytest.mark.slow
def test_double_precision_an_evaluation_and_an_adapter_upon_it(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    tuned = tuning(recipe, tmp_path, base="int8")
    tuned["machine"] = {**recipe["machine"], "precision": "fp64"}
    run = groundup.train(tuned, runs=tmp_path)
    found = groundup.evaluate(run.folder, limit=1)["runs"][0]["evaluation"]["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    upon = {
        **tuned,
        "name": "upon",
        "init": {"run": str(run.folder)},
        "adapter": {"rank": 2, "base": "nf4"},
    }
    assert groundup.train({**upon, "machine": recipe["machine"]}, runs=tmp_path).finished
