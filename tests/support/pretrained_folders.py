"""Small random models and a tokenizer in Hugging Face layout, as `transformers` writes them, for
tests."""

from __future__ import annotations

import json
import pydoc_data.topics
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from later import Library
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

transformers: Any = Library("transformers")

SHAPE: dict[str, Any] = {
    **{
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    **{"num_key_value_heads": 2, "max_position_embeddings": 64, "attn_implementation": "eager"},
}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "attn_implementation": "eager",
}


def _rope(kind: str, **values: Any) -> dict[str, Any]:
    return {**SHAPE, "rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **values}}


def _longrope(original: int, share: float, pairs: int) -> dict[str, Any]:
    factors = {
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [2.0**i for i in range(pairs)],
    }
    rope = {"rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": share, **factors}
    return {**PHI, "original_max_position_embeddings": original, "rope_parameters": rope}


GEMMA: dict[str, Any] = {
    **SHAPE,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 7,
    "num_hidden_layers": 3,
}
GEMMA |= {"sliding_window_pattern": 3, "pad_token_id": None}
PHI: dict[str, Any] = {
    **SHAPE,
    "pad_token_id": None,
}  # a token for padding has no gradient in transformers
_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-untied-gelu": (
        "GPT2",
        {**GPT2, "tie_word_embeddings": False, "activation_function": "gelu", "n_inner": 40},
    ),
    "llama2": ("Llama", {**SHAPE, "num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama3": ("Llama", _rope("llama3", **_LLAMA3)),
    "llama-linear": ("Llama", _rope("linear", factor=4.0)),
    "llama-dynamic": ("Llama", _rope("dynamic", factor=2.0)),
    "llama-yarn": ("Llama", _rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn-all": (
        "Llama",
        _rope(
            "yarn",
            **{
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 8.0,
                "beta_slow": 2.0,
            },
            **{"truncate": False, "mscale": 1.0, "mscale_all_dim": 0.5},
        ),
    ),
    "llama-bias": (
        "Llama",
        {**SHAPE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "smollm2": (
        "Llama",
        {**SHAPE, "num_attention_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    ),
    "mistral": ("Mistral", {**SHAPE, "sliding_window": 7}),
    "mistral-full": ("Mistral", {**SHAPE, "sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {**SHAPE, "tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2",
        {**SHAPE, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0},
    ),
    "qwen2-yarn": ("Qwen2", _rope("yarn", factor=2.0, original_max_position_embeddings=32)),
    "qwen3": ("Qwen3", {**SHAPE, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-window": (
        "Qwen3",
        {**SHAPE, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0},
    ),
    "gemma3": ("Gemma3", GEMMA),
    "gemma3-wide": (
        "Gemma3",
        {
            **{
                **GEMMA,
                "num_hidden_layers": 4,
                "sliding_window_pattern": 2,
                "query_pre_attn_scalar": 21,
            },
            **{"final_logit_softcapping": 3.0, "head_dim": 12, "num_key_value_heads": 4},
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        },
    ),
    "phi3": ("Phi3", PHI),
    "phi3-window": (
        "Phi3",
        {**PHI, "sliding_window": 9, "tie_word_embeddings": True, "rms_norm_eps": 1e-6},
    ),
    "phi3-short": ("Phi3", _longrope(48, 0.75, 3)),
    "phi3-long": ("Phi3", _longrope(20, 1.0, 4)),
}
_CLASSES, _CONFIGS = {"GPT2": "GPT2LMHeadModel"}, {"Gemma3": "Gemma3TextConfig"}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_model(family: str, **changed: Any) -> Any:
    """Return a model of transformers whose every parameter is random, norms and biases too."""
    name, options = FAMILIES[family]
    torch.manual_seed(1)
    config = getattr(transformers, _CONFIGS.get(name, f"{name}Config"))(**{**options, **changed})
    module = getattr(transformers, _CLASSES.get(name, f"{name}ForCausalLM"))(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def write_model(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    **changed: Any,
) -> Any:
    """Write a random model with ``save_pretrained``; return it as transformers reads it again, in
    float32."""
    random_model(family, **changed).to(dtype).save_pretrained(folder, max_shard_size=shard)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@lru_cache(maxsize=1)
def _tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [text[:2000] for text in pydoc_data.topics.topics.values()][:20], trainer
    )
    return str(tokenizer.to_str())


def write_tokenizer(
    folder: Path, *, template: str | None = CHATML, jinja: bool = False
) -> Tokenizer:
    """Write a byte-level BPE of 320 tokens with its config, the chat template in it or beside
    it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_tokenizer(), encoding="utf-8")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    if template is not None and jinja:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    elif template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_str(_tokenizer())


def recipe_for(folder: Path, name: str, **parts: Any) -> dict[str, Any]:
    """Return the recipe of one step that hardly moves the weights of ``folder / "base"``, on a few
    texts that are written next to it."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    for number in range(20):
        (texts / f"{number}.txt").write_text(f"the lamp and the river {number} " * 20)
    return {
        "name": name,
        "init": {"pretrained": str(folder / "base")},
        "model": {"context_length": 32},
        "task": "language_modeling",
        "data": {"name": "text", "path": str(texts)},
        "optim": {"lr": 1e-12, "weight_decay": 0.0},
        "training": {"batch_size": 2, "steps": 1},
        "machine": {"threads": 1, "compile": False, "precision": "fp32"},
        **parts,
    }
