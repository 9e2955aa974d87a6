"""Configurations that the models built here lack a part for, opened by ``hub`` without a word in the
recipe but one in the log."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_folders import (
    GPT2,
    SHAPE,
    recipe_for,
    transformers,
    write_model,
    write_tokenizer,
)

import groundup
from groundup.core.errors import CheckpointError
from groundup.core.registry import lookup
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained
from groundup.recipe.fill_from_init import inherit
from groundup.weights.load import read_pretrained

pytestmark = pytest.mark.xdist_group("transformers")

TWO = ["sliding_attention", "full_attention"]
ROPE = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
# The class, its settings, and what the log says of it.
LACKING: dict[str, tuple[str, dict[str, Any], str]] = {
    "one bias": ("Llama", {"attention_bias": True}, "attention_bias is True, but mlp_bias False"),
    "gelu": ("Llama", {"hidden_act": "gelu"}, "activation gelu"),
    "partial": (
        "Llama",
        {"rope_parameters": {**ROPE, "rope_type": "default", "partial_rotary_factor": 0.5}},
        "only a part of each head is rotary",
    ),
    "mixed windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": TWO},
        "only some layers have a sliding window",
    ),
    "by layer": ("GPT2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer"),
    "capped": ("Gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping is 5.0"),
    "gelu phi": ("Phi3", {"hidden_act": "gelu", "pad_token_id": None}, "phi3, activation gelu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LACKING)
@torch.no_grad()
def test_it_takes_over_and_says_so(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    family, changed, reason = LACKING[case]
    text = "Text" if family == "Gemma3" else ""
    shape = GPT2 if family == "GPT2" else SHAPE
    config = getattr(transformers, f"{family}{text}Config")(**shape, **changed)
    kind = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    module = getattr(transformers, f"{family}{kind}")(config).eval()
    module.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="groundup"):
        model = opened(tmp_path)
        opened(tmp_path)
    said = [line for line in caplog.messages if "so model hub opens it, with transformers" in line]
    assert len(said) == 1
    assert reason in said[0]
    tokens = torch.randint(61, (2, 20))
    torch.testing.assert_close(model(tokens), module(tokens).logits, rtol=0, atol=1e-5)
    name = {"GPT2": "gpt", "Gemma3": "gemma3", "Phi3": "phi3"}.get(family, "gpt")
    with pytest.raises(CheckpointError, match=reason):
        opened(tmp_path, name=name)


def opened(folder: Path, **own: Any) -> Any:
    raw: dict[str, Any] = {"init": {"pretrained": str(folder)}, "model": own}
    inherit(raw, {}, complete=False)
    section = raw["model"]
    config: Any = validate(lookup("model", section.pop("name")), section, "recipe.model")
    model = config.build()
    model.load_state_dict(read_pretrained(find_pretrained(str(folder)), config))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt", "hub"])
def test_an_output_layer_that_config_json_does_not_tie(model: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tokenizer(base)
    module = write_model(base, "smollm2", vocab_size=320)
    path = base / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"]
    path.write_text(json.dumps(config))
    recipe = recipe_for(tmp_path, "tied", model={"name": model})
    with pytest.raises(
        CheckpointError, match=r"config\.json does not say that the output"
    ) as caught:
        groundup.trainer(recipe, runs=tmp_path)
    assert caught.value.remedy.startswith("If it is, set model.tied_embeddings: true")
    recipe["model"]["tied_embeddings"] = True
    trainer = groundup.trainer(recipe | {"name": "again"}, runs=tmp_path)
    trainer.close()
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        own = trainer.model.eval()(tokens)
        torch.testing.assert_close(own, module(tokens).logits, rtol=0, atol=2e-5)
