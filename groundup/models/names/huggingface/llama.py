"""Llama, Mistral, Qwen2 and Qwen3 as Hugging Face names them: config.json and tensors, in both
directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.rotary import (
    positions_to_huggingface,
    scaling_to_groundup,
    scaling_to_huggingface,
)
from groundup.models.names.table import (
    LLAMA_FIELDS,
    Row,
    check_architecture,
    drop_copy,
    fill_in,
    from_own,
    refuse_other_values,
    to_own,
)

__all__ = [
    "FAMILIES",
    "KEYS",
    "config_to_groundup",
    "config_to_huggingface",
    "to_groundup",
    "to_huggingface",
]

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
    *(Row("model.layers.{}." + hf, ("blocks.{}." + own,)) for hf, own in _LAYER.items()),
    Row("model.norm.weight", ("norm.weight",)),
    Row("lm_head.weight", ("head.weight",)),
)
# The names of settings in config.json, and groundup's.
_FIELDS = LLAMA_FIELDS | {"head_dim": "head_dim", "tie_word_embeddings": "tied_embeddings"}


# Of transformers, for what config.json leaves out: of all families, and of each.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
}
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
    },
    "qwen2": {"intermediate_size": 22016, "vocab_size": 151936, "num_key_value_heads": 32},
    "qwen3": {
        "intermediate_size": 22016,
        "vocab_size": 151936,
        "num_key_value_heads": 32,
        "head_dim": 128,
    },
}
_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


# What is read of config.json, of all families.
KEYS = frozenset((*_FIELDS, *_DEFAULTS, "hidden_act", "rope_parameters", "rope_scaling"))
KEYS |= {"rope_theta", "partial_rotary_factor", "rope_interleaved", "attention_bias", "mlp_bias"}
KEYS |= {"layer_types", "sliding_window", "use_sliding_window", "max_window_layers"}
KEYS |= {"original_max_position_embeddings"}


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's. A copy of tied embeddings under ``lm_head`` is
    left out.

    Old files' ``rotary_emb.inv_freq`` is left out too: it follows from the config. ``own`` is as
    ``expected`` of ``to_own``.
    """
    kept = {n: tensor for n, tensor in tensors.items() if not n.endswith(".rotary_emb.inv_freq")}
    # Some files hold the output layer although it is the embedding.
    if config["tied_embeddings"]:
        kept = drop_copy(kept, "lm_head.weight", "model.embed_tokens.weight")
    return to_own(_ROWS, kept, config["layers"], own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of GPT from the contents of config.json.

    Raises:
        CheckpointError: If the model has a part that groundup's lacks.
    """
    family = config["model_type"]
    activation = config.get("hidden_act", "silu")
    if family not in FAMILIES or activation != "silu":
        found = (
            f"model_type {family}, activation {activation}; supported: {', '.join(FAMILIES)}; silu"
        )
        raise CheckpointError("config.json", found, "Use another model")
    check_architecture(config, (f"{_CLASSES[family]}ForCausalLM",))
    refuse_other_values(config, {"partial_rotary_factor": 1.0, "rope_interleaved": False})
    full = fill_in(_DEFAULTS | _OWN_DEFAULTS[family], config)
    # Old files do not name them: there are as many as queries.
    full.setdefault("num_key_value_heads", full["num_attention_heads"])
    full.setdefault("head_dim", full["hidden_size"] // full["num_attention_heads"])
    # Newer files have all of it in one place.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "rope_theta": float(rope.get("rope_theta", full.get("rope_theta", 10000.0))),
        "rope_scaling": scaling_to_groundup(rope, full),
        "sliding_window": _window(config, full["num_hidden_layers"]),
        "qk_norm": family == "qwen3",
        "bias": "qkv" if family == "qwen2" else _bias(config),
    }


def _window(config: Mapping[str, Any], layers: int) -> int | None:
    """Return how many tokens a token sees in every layer, or None for all."""
    window: int | None = config.get("sliding_window", 4096)
    if config["model_type"] == "llama":
        return None
    full = 0
    if config["model_type"] != "mistral":
        if not config.get("use_sliding_window", False):
            return None
        # In Qwen the first layers see all, and only those after them a window.
        full = min(config.get("max_window_layers", 28), layers)
    default = ["full_attention"] * full + ["sliding_attention"] * (layers - full)
    kinds = set(config.get("layer_types") or default)
    if len(kinds) > 1:
        raise CheckpointError(
            "config.json", "only some layers have a sliding window", "Use another model"
        )
    if "sliding_attention" not in kinds:
        return None
    return window


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of GPT, those that follow from
    others filled in.

    Raises:
        CheckpointError: If no family of Hugging Face's has this combination of parts.
    """
    window = config["sliding_window"]
    bias = config["bias"]
    # The plainest family that has the parts.
    family = "llama"
    if config["qk_norm"]:
        family = "qwen3"
    elif bias == "qkv":
        family = "qwen2"
    elif window is not None:
        family = "mistral"
    biases = {
        "llama": ("none", "all"),
        "qwen2": ("qkv",),
        "qwen3": ("none",),
        "mistral": ("none",),
    }[family]
    shape = (config["positions"], config["norm"], config["activation"])
    # It has no setting for the channels of a head.
    odd_heads = family == "qwen2" and config["head_dim"] * config["heads"] != config["width"]
    if shape != ("rotary", "rmsnorm", "swiglu") or bias not in biases or odd_heads:
        found = f"{', '.join(shape)}, bias {bias}, qk_norm {config['qk_norm']}, window {window}"
        raise CheckpointError(
            "model", f"no Hugging Face family has {found}", "Keep it in the project's own layout"
        )
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()} | {
        "hidden_act": "silu"
    }
    values["max_position_embeddings"] = positions_to_huggingface(config)
    values["rope_parameters"] = {
        "rope_theta": config["rope_theta"],
        **scaling_to_huggingface(config["rope_scaling"]),
    }
    # Where readers before transformers 5 look, as for rope_scaling.
    values["rope_theta"] = config["rope_theta"]
    if config["rope_scaling"]:
        values["rope_scaling"] = values["rope_parameters"]
    if window is not None:
        values["sliding_window"] = window
    if family in ("qwen2", "qwen3") and window is not None:
        values |= {"use_sliding_window": True, "max_window_layers": 0}
        values["layer_types"] = ["sliding_attention"] * config["layers"]
    if family == "llama":
        values["attention_bias"] = values["mlp_bias"] = bias == "all"
    return {"model_type": family, "architectures": [f"{_CLASSES[family]}ForCausalLM"], **values}


def _bias(config: Mapping[str, Any]) -> str:
    attention = config.get("attention_bias", False)
    mlp = config.get("mlp_bias", False)
    if attention != mlp:
        problem = f"attention_bias is {attention}, but mlp_bias {mlp}"
        raise CheckpointError("config.json", problem, "Use another model")
    return "all" if attention else "none"
