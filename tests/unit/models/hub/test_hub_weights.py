"""Tensors of files that transformers' models hold otherwise, and heads that begin again."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import write_tokenizer
from safetensors.torch import load_file
from test_hub import opened, tuning, write

import groundup
from groundup.core.errors import CheckpointError

__all__ = ["tuning"]

EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"intermediate_size": 16, "num_local_experts": 4, "num_key_value_heads": 1},
    "qwen3_moe": {
        **{"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
        "num_key_value_heads": 1,
    },
    "olmoe": {"intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {
        **{"intermediate_size": 16, "num_local_experts": 4, "head_dim": 8},
        "num_key_value_heads": 1,
    },
    "deepseek_v3": {
        **{"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8},
        **{"v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
        **{"moe_intermediate_size": 16, "first_k_dense_replace": 1, "num_experts_per_tok": 2},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_trained_and_written_one_by_one(
    family: str, tuning: dict[str, Any], tmp_path: Path
) -> None:
    """Files hold them one by one, or stacked otherwise than the library computes with them."""
    shutil.rmtree(tmp_path / "base")
    write(tmp_path / "base", family, **EXPERTS[family])
    write_tokenizer(tmp_path / "base")
    plain = tuning | {"model": {"context_length": 32}, "training": {"batch_size": 4, "steps": 8}}
    run = groundup.train(plain, runs=tmp_path / "runs")
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < losses[0]
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = load_file(run.folder / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("experts" in name for name in moved)

    adapter = {"name": "lora", "rank": 2}
    tuned = groundup.train(plain | {"name": "lora", "adapter": adapter}, runs=tmp_path / "runs")
    said = (tuned.folder / "metrics.jsonl").read_text()
    assert re.search(r"linear layers have an adapter; \S*experts\.\S+.* stay as they are", said)
    written = load_file(tuned.folder / "model" / "model.safetensors")
    assert before.keys() == written.keys()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [2, 3])
def test_what_begins_again_is_named_and_nothing_else_does(
    asked: int, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    """XLM-R registers its head before its trunk, DeBERTa vectors of the trunk after it."""
    shape = {"intermediate_size": 32, "max_position_embeddings": 64}
    deberta = {"relative_attention": True, "pos_att_type": ["p2c"], "position_buckets": 8}
    for family, extra in (("xlm-roberta", {}), ("deberta-v2", deberta)):
        base = tmp_path / family
        write(base, family, "SequenceClassification", **shape, **extra, num_labels=2)
        write_tokenizer(base, template=None)
        path = tmp_path / "texts.jsonl"
        rows = [{"text": f"number {n} is good", "label": "abc"[n % asked]} for n in range(24)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        parts = {key: recipe[key] for key in ("logging", "evaluation", "checkpoints", "machine")}
        run = groundup.train(
            parts
            | {
                "name": family,
                "task": "classify",
                "data": {"name": "labelled_text", "path": str(path), "fraction": 0.25},
                "init": {"pretrained": str(base)},
                # So small a rate that what moves far began again.
                "optim": {"lr": 1e-6},
                "training": {"batch_size": 4, "steps": 1},
            },
            runs=tmp_path / "runs",
        )
        last = "out_proj." if family == "xlm-roberta" else ""
        names = [f"head.classifier.{last}{kind}" for kind in ("weight", "bias")]
        said = (run.folder / "metrics.jsonl").read_text()
        assert f"new head, from random numbers: {', '.join(sorted(names, reverse=True))}" in said
        stored = load_file(base / "model.safetensors")
        written = load_file(run.folder / "model" / "model.safetensors")
        assert stored.keys() == written.keys()
        moved = {
            name
            for name in stored
            if stored[name].shape != written[name].shape
            or (stored[name] - written[name]).abs().max() > 1e-3
        }
        assert moved == {f"classifier.{last}{kind}" for kind in ("weight", "bias")}


@torch.no_grad()
def test_an_output_layer_that_is_not_the_embedding(tmp_path: Path) -> None:
    module = write(tmp_path, "granite", intermediate_size=32, tie_word_embeddings=False)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(
        CheckpointError,
        match=r"lm_head.weight differs from model.embed_tokens.weight, .*tied_embeddings: false",
    ):
        opened(tmp_path)
    model, tokens = opened(tmp_path, tied_embeddings=False), torch.randint(2, 320, (1, 9))
    torch.testing.assert_close(model(tokens), module(tokens).logits, rtol=0, atol=1e-5)
    assert model.config.to_huggingface(model.state_dict())[0]["tie_word_embeddings"] is False


@pytest.mark.slow
def test_runs_of_before_tensors_were_named_as_they_are(tmp_path: Path) -> None:
    """DeBERTa's vectors of distances were a part of the head, and XLM-R's head was not."""
    shape = {"intermediate_size": 32, "max_position_embeddings": 64}
    deberta = {"relative_attention": True, "pos_att_type": ["p2c"], "position_buckets": 8}
    groups = {
        "xlm-roberta": ("head.classifier", "embed.classifier", {}),
        "deberta-v2": ("embed.rel_embeddings", "head.rel_embeddings", deberta),
    }
    for family, (now, then, extra) in groups.items():
        base = tmp_path / family
        write(base, family, "SequenceClassification", **shape, **extra, num_labels=2)
        write_tokenizer(base, template=None)
        path = tmp_path / "texts.jsonl"
        rows = [{"text": f"number {n} is good", "label": "ab"[n % 2]} for n in range(24)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = {
            "name": f"{family}-run",
            "task": "classify",
            "data": {"name": "labelled_text", "path": str(path), "fraction": 0.25},
            "init": {"pretrained": str(base)},
            "training": {"batch_size": 4, "steps": 2},
            "checkpoints": {"every": 1},
            "machine": {"threads": 1, "compile": False, "precision": "fp32"},
        }
        trainer = groundup.trainer(recipe, runs=tmp_path)
        next(iter(trainer.steps()))
        state = trainer.state_dict()
        model = {name.replace(now, then): tensor for name, tensor in state.model.items()}
        assert model.keys() != state.model.keys()
        expected = trainer.model.eval()(torch.tensor([[5, 6, 7]]))
        trainer.run.checkpoints.save(dataclasses.replace(state, model=model), 2, 1)
        trainer.close()
        opened = groundup.load(trainer.run.folder, checkpoint="last")
        assert torch.equal(opened.model(torch.tensor([[5, 6, 7]])), expected)
        further = recipe | {"name": f"{family}-on", "init": {"run": str(trainer.run.folder)}}
        groundup.trainer(further, runs=tmp_path).close()
        with pytest.raises(CheckpointError, match=rf"tensor {now}\S+ was called {then}") as caught:
            groundup.train(recipe, runs=tmp_path)
        assert caught.value.remedy == "Start a new run from it: init: {run: ...}"
