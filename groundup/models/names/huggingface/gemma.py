"""Gemma 3 as Hugging Face names it: config.json and tensors, in both directions."""

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
    USE_HUB,
    Row,
    check_architecture,
    drop_copy,
    fill_in,
    from_own,
    refuse_other_values,
    to_own,
)

__all__ = ["KEYS", "config_to_groundup", "config_to_huggingface", "to_groundup", "to_huggingface"]

_LAYER = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "self_attn.q_norm": "attention.query_norm",
    "self_attn.k_norm": "attention.key_norm",
    "post_attention_layernorm": "attention_out_norm",
    "pre_feedforward_layernorm": "mlp_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
    "post_feedforward_layernorm": "mlp_out_norm",
}
_ROWS = (
    Row("model.embed_tokens.weight", ("embed.weight",)),
    *(
        Row(f"model.layers.{{}}.{hf}.weight", (f"blocks.{{}}.{own}.weight",))
        for hf, own in _LAYER.items()
    ),
    Row("model.norm.weight", ("norm.weight",)),
)
# The names of settings in config.json, and groundup's.
_FIELDS = LLAMA_FIELDS | {
    "head_dim": "head_dim",
    "sliding_window": "sliding_window",
    "final_logit_softcapping": "logit_cap",
    "query_pre_attn_scalar": "attention_scale",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "intermediate_size": 9216,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "query_pre_attn_scalar": 256,
    "final_logit_softcapping": None,
    "sliding_window_pattern": 6,
}
# What would change the model's numbers if it were otherwise.
_PLAIN: dict[str, Any] = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "tie_word_embeddings": True,
}
_LOCAL = "sliding_attention"
_GLOBAL = "full_attention"


# What is read of config.json.
KEYS = frozenset((*_FIELDS, *_DEFAULTS, *_PLAIN, "rope_scaling", "rope_parameters", "rope_theta"))
KEYS |= {"rope_local_base_freq", "layer_types", "original_max_position_embeddings"}


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's. A copy of the embedding is left out. ``own`` is as
    ``expected`` of ``to_own``."""
    kept = drop_copy(tensors, "lm_head.weight", "model.embed_tokens.weight", USE_HUB)
    return to_own(_ROWS, kept, config["layers"], own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of Gemma 3 from the contents of config.json.

    Raises:
        CheckpointError: If the model is of another family, reads images, or has a part that
            groundup's lacks.
    """
    family = config.get("model_type")
    # Such files hold a vision encoder too, for which there is no place.
    if family == "gemma3":
        problem = (
            "model_type gemma3 reads images too; supported is gemma3_text, which reads text only"
        )
        raise CheckpointError(
            "config.json", problem, "Use a text-only model, such as google/gemma-3-1b-pt"
        )
    if family != "gemma3_text":
        raise CheckpointError(
            "config.json", f"model_type {family}; supported: gemma3_text", "Use another model"
        )
    check_architecture(config, ("Gemma3ForCausalLM",))
    refuse_other_values(config, _PLAIN)
    full = fill_in(_DEFAULTS, config)
    ropes = full.get("rope_parameters") or {}
    far = {**(ropes.get(_GLOBAL) or {}), **(full.get("rope_scaling") or {})}
    near = ropes.get(_LOCAL) or {}
    if near.get("rope_type", "default") != "default":
        problem = f"local layers have rotary scaling {near['rope_type']}; supported: default"
        raise CheckpointError("config.json", problem, "Use another model")
    cap = full["final_logit_softcapping"]
    scale = full["query_pre_attn_scalar"]
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "global_every": _global_every(full),
        "rope_theta": float(far.get("rope_theta", full.get("rope_theta", 1e6))),
        "local_rope_theta": float(near.get("rope_theta", full.get("rope_local_base_freq", 1e4))),
        "rope_scaling": scaling_to_groundup(far, full),
        "attention_scale": None if scale == full["head_dim"] else float(scale),
        "logit_cap": None if cap is None else float(cap),
    }


def _global_every(config: Mapping[str, Any]) -> int:
    """Return n where each n-th layer is global; one more than there are layers where none is."""
    layers = config["num_hidden_layers"]
    kinds = config.get("layer_types")
    if kinds is None:
        return int(config["sliding_window_pattern"])
    # The first global layer tells the period; one more at the end is there when none is.
    every: int = [*kinds, _GLOBAL].index(_GLOBAL) + 1
    # Only patterns that repeat have a setting here.
    if len(kinds) != layers or kinds != _kinds(layers, every):
        problem = f"layer_types do not repeat: {', '.join(map(str, kinds))[:120]}"
        remedy = (
            "Use a model in which each n-th layer is full_attention and the others"
            " sliding_attention"
        )
        raise CheckpointError("config.json", problem, remedy)
    return every


def _kinds(layers: int, every: int) -> list[str]:
    return [_LOCAL if number % every else _GLOBAL for number in range(1, layers + 1)]


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of Gemma 3, those that follow from
    others filled in."""
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()} | _PLAIN
    values["max_position_embeddings"] = positions_to_huggingface(config)
    # transformers' settings have whole numbers there, where they are whole.
    scale = config["attention_scale"]
    if scale == int(scale):
        values["query_pre_attn_scalar"] = int(scale)
    far = {"rope_theta": config["rope_theta"], **scaling_to_huggingface(config["rope_scaling"])}
    near = {"rope_theta": config["local_rope_theta"], "rope_type": "default"}
    values["rope_parameters"] = {_GLOBAL: far, _LOCAL: near}
    # Where readers before transformers 5 look:
    values |= {
        "rope_theta": config["rope_theta"],
        "rope_local_base_freq": config["local_rope_theta"],
    }
    if config["rope_scaling"]:
        values["rope_scaling"] = scaling_to_huggingface(config["rope_scaling"])
    values["sliding_window_pattern"] = config["global_every"]
    values["layer_types"] = _kinds(config["layers"], config["global_every"])
    return {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], **values}
