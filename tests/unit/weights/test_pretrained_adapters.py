"""Adapters beside pretrained weights in Hugging Face layout."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_folders import write_encoder, write_films
from pretrained_folders import transformers, write_model, write_tokenizer
from safetensors.torch import load_file, save_file

import groundup
from groundup.core.errors import GroundupError, RunError
from groundup.models.gpt import GPTConfig
from groundup.nn.lowbit.nf4 import quantized_shapes
from groundup.weights.load import pretrained_weights
from groundup.weights.quantized_base import memory_of, quantize_layers


@pytest.fixture
def tuning(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe of three steps of LoRA beside a random Llama."""
    write_model(tmp_path / "base", "llama3", vocab_size=320)
    write_tokenizer(tmp_path / "base")
    parts = {
        key: recipe[key]
        for key in ("name", "task", "data", "logging", "evaluation", "checkpoints", "machine")
    }
    parts |= {"model": {"context_length": 32}, "init": {"pretrained": str(tmp_path / "base")}}
    return parts | {
        "adapter": {"name": "lora", "rank": 4},
        "training": {"batch_size": 4, "steps": 3},
    }


@pytest.mark.slow
def test_from_the_folder_to_the_merged_model(tuning: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    saved = run.checkpoints.load(3, with_optimizer=False)
    assert all(name.endswith(("lora_A", "lora_B")) for name in saved.model)
    assert saved.state["base"]["run"] == str(tmp_path / "base")
    assert saved.state["base"]["sha256"] == run.read_json("environment.json")["base_weights_sha256"]

    tokens, predictor = torch.randint(320, (1, 30)), groundup.load(run.folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.float32
    ).eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(
        run.folder / "model", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        ours = predictor.model(tokens)
        assert (merged(tokens).logits - ours).abs().max() <= 1e-4
        assert (base(tokens).logits - ours).abs().max() > 1e-4
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"starting from the pretrained weights `{tmp_path / 'base'}`" in card
    assert "with an adapter (lora) that is merged here" in card
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_base_quantized_as_it_is_read(tuning: dict[str, Any], tmp_path: Path, base: str) -> None:
    tuning["adapter"]["base"] = base
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    list(islice(trainer.steps(), 1))
    trainer.save()
    read = pretrained_weights(trainer.run)
    whole = GPTConfig(**trainer.recipe.model.model_dump()).build()
    whole.load_state_dict(read)
    quantize_layers(whole, trainer.recipe.adapter, "base")
    own, layers = trainer.model.state_dict(), quantized_shapes(whole)
    assert len(layers) == 2 * 7
    assert all(torch.equal(own[name], value) for name, value in whole.state_dict().items())
    for name in layers:
        layer = trainer.model.get_submodule(name)
        assert torch.equal(layer.linear_weight, whole.get_submodule(name).weight)
        assert (layer.linear_weight - read[f"{name}.weight"]).abs().max() > 0
    assert not any(
        value.is_meta for value in [*trainer.model.parameters(), *trainer.model.buffers()]
    )
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert all(name.endswith(("lora_A", "lora_B")) for name in trained)
    expected = trainer.evaluate(2)
    trainer.close()
    again = groundup.trainer(tuning, runs=tmp_path / "runs")
    assert (again.step, again.evaluate(2)) == (1, expected)
    again.close()


@pytest.mark.slow
def test_a_new_head_beside_a_quantized_encoder(tmp_path: Path) -> None:
    write_encoder(tmp_path / "bert", "Model")
    parts = {
        "init": {"pretrained": str(tmp_path / "bert")},
        "adapter": {"name": "lora", "base": "nf4"},
    }
    run = groundup.train(write_films(tmp_path) | parts, runs=tmp_path / "runs")
    predictor, saved = groundup.load(run.folder), run.checkpoints.load(3, with_optimizer=False)
    assert memory_of(predictor.model)["layers"] == 12, "all linear layers of two blocks"
    torch.testing.assert_close(
        predictor.model.get_parameter("head.weight"), saved.model["head.weight"]
    )
    assert predictor(["A good film"])[0] in ("0", "1")


@pytest.mark.slow
def test_resuming_equals_not_stopping_and_needs_the_folder(
    tuning: dict[str, Any], tmp_path: Path
) -> None:
    whole = groundup.train(tuning | {"name": "whole"}, runs=tmp_path / "runs")
    trainer = groundup.trainer(tuning, runs=tmp_path / "runs")
    list(islice(trainer.steps(), 1))
    trainer.save()
    trainer.close()
    resumed = groundup.api.resume(trainer.run.folder)
    first, second = (run.checkpoints.load(3).model for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(GroundupError, match="base"):
        groundup.load(resumed.folder)


@pytest.mark.slow
def test_other_weights_in_the_folder_are_noticed(tuning: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {name: 2 * value for name, value in weights.items()},
        tmp_path / "base" / "model.safetensors",
    )
    with pytest.raises(RunError, match="was begun with other weights than"):
        groundup.load(run.folder)
