"""Llama, Mistral, Qwen2 and Qwen3 as Hugging Face names them: config.json and tensors, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import Row, from_ours, to_ours

__all__ = ["FAMILIES", "config_to_groundup", "config_to_huggingface", "to_groundup", "to_huggingface"]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")

_LAYER = {
    "input_layernorm.weight": "attention_norm.weight",
    "self_attn.q_proj.weight": "attention.query.weight",
    "self_attn.q_proj.bias": "attention.query.bias",
    "self_attn.k_proj.weight": "attention.key.weight",
    "self_attn.k_proj.bias": "attention.key.bias",
    "self_attn.v_proj.weight": "attention.value.weight",
    "self_attn.v_proj.bias": "attention.value.bias",
    "self_attn.o_proj.weight": "attention.output.weight",
    "self_attn.o_proj.bias": "attention.output.bias",
    "self_attn.q_norm.weight": "attention.query_norm.weight",
    "self_attn.k_norm.weight": "attention.key_norm.weight",
    "post_attention_layernorm.weight": "mlp_norm.weight",
    "mlp.gate_proj.weight": "mlp.gate.weight",
    "mlp.gate_proj.bias": "mlp.gate.bias",
    "mlp.up_proj.weight": "mlp.up.weight",
    "mlp.up_proj.bias": "mlp.up.bias",
    "mlp.down_proj.weight": "mlp.down.weight",
    "mlp.down_proj.bias": "mlp.down.bias",
}
_ROWS = (
    Row("model.embed_tokens.weight", ("embed.weight",)),
    *(Row("model.layers.{}." + theirs, ("blocks.{}." + ours,)) for theirs, ours in _LAYER.items()),
    Row("model.norm.weight", ("norm.weight",)),
    Row("lm_head.weight", ("head.weight",)),
)
_FIELDS = {  # config.json: ours
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_width",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tied_embeddings",
    "vocab_size": "vocabulary_size",
}


def to_groundup(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our tensors from theirs. A copy of tied embeddings under ``lm_head`` is left out."""
    kept = {name: t for name, t in tensors.items() if not (config["tied_embeddings"] and name == "lm_head.weight")}
    return to_ours(_ROWS, kept, config["layers"])


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return their tensors from ours."""
    return from_ours(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of our GPT from the contents of config.json.

    Raises:
        CheckpointError: If the model has a part that ours lacks.
    """
    family = config["model_type"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if family not in FAMILIES or scaling != "default" or config.get("hidden_act", "silu") != "silu":
        found = f"model_type {family}, rotary scaling {scaling}, activation {config.get('hidden_act')}"
        raise CheckpointError(
            "config.json", f"{found}; supported: {', '.join(FAMILIES)}, default, silu", "Use another model"
        )
    values: dict[str, Any] = {
        ours: config[theirs] for theirs, ours in _FIELDS.items() if config.get(theirs) is not None
    }
    windowed = family == "mistral" or config.get("use_sliding_window", False)
    if windowed and len(set(config.get("layer_types") or ["one"])) > 1:
        raise CheckpointError("config.json", "only some layers have a sliding window", "Use another model")
    return values | {
        "rope_theta": float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        "sliding_window": config.get("sliding_window") if windowed else None,
        "qk_norm": family == "qwen3",
        "bias": "qkv" if family == "qwen2" else _bias(config),
    }


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of our GPT, those that follow from others filled in.

    Raises:
        CheckpointError: If no family of theirs has this combination of parts.
    """
    window, bias = config["sliding_window"], config["bias"]
    family = "llama"
    if config["qk_norm"]:
        family = "qwen3"
    elif window is not None:
        family = "mistral"
    elif bias == "qkv":
        family = "qwen2"
    biases = {"llama": ("none", "all"), "qwen2": ("qkv",), "qwen3": ("none",), "mistral": ("none",)}[family]
    shape = (config["positions"], config["norm"], config["activation"])
    odd_window = window is not None and family != "mistral"
    odd_heads = family == "qwen2" and config["head_dim"] * config["heads"] != config["width"]
    if shape != ("rotary", "rmsnorm", "swiglu") or bias not in biases or odd_window or odd_heads:
        found = f"{', '.join(shape)}, bias {bias}, qk_norm {config['qk_norm']}, window {window}"
        raise CheckpointError("model", f"no Hugging Face family has {found}", "Keep it in the project's own layout")
    values: dict[str, Any] = {theirs: config[ours] for theirs, ours in _FIELDS.items()} | {"hidden_act": "silu"}
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    values["rope_theta"] = config["rope_theta"]  # where readers before transformers 5 look
    if family == "mistral":
        values["sliding_window"] = window
    if family == "llama":
        values["attention_bias"] = values["mlp_bias"] = bias == "all"
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family]
    return {"model_type": family, "architectures": [f"{name}ForCausalLM"], **values}


def _bias(config: Mapping[str, Any]) -> str:
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    if attention != mlp:
        raise CheckpointError("config.json", f"attention_bias {attention} beside mlp_bias {mlp}", "Use another model")
    return "all" if attention else "none"
