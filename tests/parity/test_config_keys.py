"""Every key that transformers' settings of a family have is read, has one value that is built, or
has no effect on what is computed; any other is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pretrained_folders import recipe_for, transformers, write_model, write_tokenizer
from tiny_families import tiny_config

from groundup.core.errors import CheckpointError, RecipeError
from groundup.models.bert import BERTConfig
from groundup.models.gemma import Gemma3Config
from groundup.models.gpt import GPTConfig
from groundup.models.hub.config import HubConfig
from groundup.models.phi3 import Phi3Config
from groundup.models.vit import ViTConfig
from groundup.models.whisper import WhisperConfig
from groundup.recipe.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
GPT2: dict[str, Any] = {"positions": "learned", "norm": "layernorm", "bias": "all"}
READERS: dict[str, Any] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), GPTConfig()),
    "gpt2": GPTConfig(**GPT2, activation="gelu_tanh"),
    "phi3": Phi3Config(),
    "gemma3_text": Gemma3Config(),
    **dict.fromkeys(("bert", "roberta", "distilbert"), BERTConfig()),
    "vit": ViTConfig(),
    "whisper": WhisperConfig(),
    "olmo2": HubConfig(config={"model_type": "olmo2"}),
    "deberta-v2": HubConfig(config={"model_type": "deberta-v2"}),
}
# What published files have next to the settings of their class, and which family they are of.
PUBLISHED: dict[str, dict[str, Any]] = {
    "bert": {
        **{"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12},
        **{"pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first"},
        **{"position_embedding_type": "absolute", "gradient_checkpointing": False},
    },
    "openai-gpt": {"n_special": 0, "predict_special_tokens": True, "afn": "gelu"},
    "gpt2": {
        **{"n_ctx": 1024, "task_specific_params": {"text-generation": {"do_sample": True}}},
        "output_past": True,
    },
    "xlm-roberta": {"position_embedding_type": "absolute", "output_past": True},
    "llama": {
        **{"pretraining_tp": 1, "unsloth_version": "2025.1", "unsloth_fixed": True},
        **{"torch_dtype": "bfloat16", "_name_or_path": "a/b", "rope_theta": 5e5},
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}},
    },
    "mistral": {"sliding_window": None, "use_cache": True, "max_length": 20, "temperature": 0.7},
    "qwen2_moe": {"router_aux_loss_coef": 0.001, "max_window_layers": 28},
    "deberta-v2": {
        "legacy": True,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pooler_dropout": 0,
        "max_relative_positions": -1,
    },
    "gpt_neox": {"rotary_pct": 0.25, "rotary_emb_base": 10000, "use_parallel_residual": True},
    "phi": {"embd_pdrop": 0.0, "auto_map": {"AutoConfig": "x.y"}, "model_max_length": 2048},
}


@pytest.mark.parametrize("family", READERS)
def test_every_key_is_known(family: str) -> None:
    config = transformers.AutoConfig.for_model(family).to_dict()
    # Null says nothing: each has some value.
    config = {key: 1 if value is None else value for key, value in config.items()}
    assert READERS[family].unknown_keys(config) == []
    assert READERS[family].unknown_keys({**config, "odd_scale": 2.0, "odd": None}) == ["odd_scale"]


def test_no_family_of_the_table_is_refused() -> None:
    for family in re.findall(r"^\| `([^`]+)`", PAGE.read_text(), re.MULTILINE):
        for settings in (tiny_config(family), transformers.AutoConfig.for_model(family)):
            config = settings.to_dict()
            assert HubConfig(config=config).unknown_keys(config) == [], family
            assert HubConfig(config=config).unknown_keys({**config, "odd": 2}) == ["odd"]


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_files_are_not_refused(family: str) -> None:
    config = transformers.AutoConfig.for_model(family).to_dict() | PUBLISHED[family]
    for reader in (READERS.get(family), HubConfig(config=config)):
        assert reader is None or reader.unknown_keys(config) == [], reader


def test_keys_within_others() -> None:
    rope = {"rope_type": "yarn", "factor": 2.0, "finetuned": True, "odd_base": 3}
    rope["attn_factor"] = 1.0  # changes nothing
    config = {"model_type": "llama", "rope_scaling": rope}
    assert GPTConfig().unknown_keys(config) == ["rope_scaling.odd_base"]
    assert HubConfig(config=config).unknown_keys(config) == ["rope_scaling.odd_base"]
    kinds = {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}
    config = {"model_type": "gemma3", "text_config": {"rope_parameters": kinds, "odd": 1}}
    assert HubConfig(config=config).unknown_keys(config) == [
        "text_config.odd",
        "text_config.rope_parameters.odd_base",
    ]


@pytest.mark.parametrize("family", ["llama2", "olmo2"])
def test_refused_unless_the_recipe_names_them(family: str, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tokenizer(base)
    if family == "olmo2":
        tiny_config(family).save_pretrained(base)
    else:
        write_model(base, family, vocab_size=320)
    path = base / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"odd_scale": 2.0, "other": "x", "none": False}))
    recipe = recipe_for(tmp_path, "keys")
    with pytest.raises(CheckpointError, match=r"not known here, .*: odd_scale, other\.") as caught:
        load_recipe(recipe)
    remedy = "If they change nothing, name them: init.ignore_config_keys: [odd_scale, other]"
    assert caught.value.remedy == remedy
    recipe["init"]["ignore_config_keys"] = ["odd_scale", "other"]
    load_recipe(recipe)
    path.write_text(json.dumps(config | {"other": "x"}))
    with pytest.raises(RecipeError, match="names odd_scale, which is known or not in"):
        load_recipe(recipe)
