"""Adapters beside pretrained weights in Hugging Face layout."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import transformers, write_model, write_tokenizer
from safetensors.torch import load_file, save_file

import groundup
from groundup.core.errors import GroundupError, RunError


@pytest.fixture
def tuning(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe of three steps of LoRA beside a random Llama."""
    write_model(tmp_path / "base", "llama3", vocab_size=320)
    write_tokenizer(tmp_path / "base")
    parts = {key: recipe[key] for key in ("name", "task", "data", "every", "machine")}
    parts |= {"model": {"context_length": 32}, "init": {"pretrained": str(tmp_path / "base")}}
    return parts | {"adapter": {"name": "lora", "rank": 4}, "budget": {"batch_size": 4, "steps": 3}}


def test_from_the_folder_to_the_merged_model(tuning: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    saved = run.checkpoints.load(3, with_optimizer=False)
    assert all(name.endswith(("lora_A", "lora_B")) for name in saved.model)
    assert saved.state["base"]["run"] == str(tmp_path / "base")
    assert saved.state["base"]["sha256"] == run.read_json("environment.json")["base_weights_sha256"]

    tokens, predictor = torch.randint(320, (1, 30)), groundup.load(run.folder)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(run.folder / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        ours = predictor.model(tokens)
        assert (merged(tokens).logits - ours).abs().max() <= 1e-4
        assert (base(tokens).logits - ours).abs().max() > 1e-4
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"starting from the pretrained weights `{tmp_path / 'base'}`" in card
    assert "with an adapter (lora) that is merged here" in card
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_resuming_equals_not_stopping_and_needs_the_folder(tuning: dict[str, Any], tmp_path: Path) -> None:
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


def test_other_weights_in_the_folder_are_noticed(tuning: dict[str, Any], tmp_path: Path) -> None:
    run = groundup.train(tuning, runs=tmp_path / "runs")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, tmp_path / "base" / "model.safetensors")
    with pytest.raises(RunError, match="was begun with other weights than"):
        groundup.load(run.folder)
