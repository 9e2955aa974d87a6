"""Adapters that are merged, with weights, compute what PEFT's ``add_weighted_adapter`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import recipe_for, write_model, write_tokenizer

import groundup
from groundup.weights.merge_adapters import merge_adapters

# What the two libraries say to each other is not ours to change.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
TOKENS = torch.arange(30)[None]
VOCABULARY = 320
LAYERS = {"llama2": ("q_proj", "up_proj", "embed_tokens"), "gpt2": ("c_attn", "c_fc", "wte")}

# Two adapters' settings, and the weights.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], list[float]]] = {
    "alike": ({}, {}, [0.7, 0.3]),
    "ranks": ({"r": 2, "lora_alpha": 8}, {"r": 5, "use_rslora": False, "lora_alpha": 3}, [1, 2]),
    "negative": ({}, {}, [1.0, -0.5]),
    "one-is-zero": ({}, {"r": 2}, [0.0, 1.5]),
    "more-than-the-layer": ({"r": 40}, {"r": 40}, [0.5, 0.5]),
    "embedding": ({"extra": 2}, {"extra": 2, "r": 3}, [0.5, 0.8]),
    "patterns": ({"alpha_pattern": {"layers.0": 1, "h.0": 1}}, {}, [0.5, 0.8]),
}


@pytest.fixture
def peft() -> Any:
    pytest.importorskip("transformers")
    return pytest.importorskip("peft")


def open_base(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)


def adapt(peft: Any, folder: Path, name: str, seed: int, layers: list[str], **settings: Any) -> Any:
    given = {"r": 4, "lora_alpha": 8, "target_modules": layers, **settings}
    model = peft.get_peft_model(open_base(folder), peft.LoraConfig(task_type="CAUSAL_LM", **given))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / name)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out = model.eval()(TOKENS)
    return out if isinstance(out, torch.Tensor) else out.logits


def write_base(folder: Path, family: str) -> None:
    shape = {"tie_word_embeddings": False} if family == "llama2" else {}
    write_model(folder / "base", family, vocab_size=VOCABULARY, **shape)
    write_tokenizer(folder / "base")


@pytest.mark.parametrize("family", ["llama2", "gpt2"])
def test_weighted_sums_are_those_of_peft(tmp_path: Path, peft: Any, family: str) -> None:
    write_base(tmp_path, family)
    base = groundup.train(recipe_for(tmp_path, "base"), runs=tmp_path / "runs").folder
    predictor = groundup.load(base)
    plain = logits(predictor.model)
    for name, (one, two, weights) in PAIRS.items():
        if name == "embedding" and family == "gpt2":
            continue  # there the output layer is the embedding, which PEFT does not change with it
        for number, settings in enumerate((one, two)):
            given = dict(settings)
            # The second adapts a layer more: the other adds nothing to that.
            layers = list(LAYERS[family][: given.pop("extra", number) + 1])
            adapt(peft, tmp_path, f"{name}-{number}", number, layers, **given)
        folders = [tmp_path / f"{name}-{number}" for number in (0, 1)]
        theirs = peft.PeftModel.from_pretrained(open_base(tmp_path), folders[0], "0")
        theirs.load_adapter(folders[1], "1")
        theirs.add_weighted_adapter(["0", "1"], weights, "merged", combination_type="cat")
        theirs.set_adapter("merged")
        expected = logits(theirs)
        assert (expected - plain).abs().max() > 1e-3, name

        merged = merge_adapters(folders, weights, tmp_path / f"{name}-merged")
        back = peft.PeftModel.from_pretrained(open_base(tmp_path), merged)
        assert (logits(back) - expected).abs().max() < 1e-4, name
        predictor.use(merged)
        assert (logits(predictor.model) - expected).abs().max() < 1e-4, name


def test_runs_are_merged_and_gone_on_from(tmp_path: Path, peft: Any) -> None:
    write_base(tmp_path, "llama2")
    adapt(peft, tmp_path, "one", 1, ["q_proj", "v_proj"])
    adapt(peft, tmp_path, "two", 2, ["q_proj", "down_proj"], r=3)
    runs = [
        groundup.train(
            recipe_for(tmp_path, name, adapter={"path": str(tmp_path / name)}),
            runs=tmp_path / "runs",
        ).folder
        for name in ("one", "two")
    ]
    merged = merge_adapters(runs, [0.5, 1.5], tmp_path / "merged")
    back = peft.PeftModel.from_pretrained(open_base(tmp_path), merged)
    on = recipe_for(tmp_path, "on", adapter={"path": str(merged)})
    run = groundup.train(on, runs=tmp_path / "runs").folder
    assert "rank 3, 4, 7" in (run / "metrics.jsonl").read_text(encoding="utf-8")
    assert (logits(groundup.load(run).model) - logits(back)).abs().max() < 1e-4
    assert "base_sha256" in open_header(merged)


def open_header(folder: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        return dict(file.metadata())
