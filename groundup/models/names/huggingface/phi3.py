"""Phi-3 as Hugging Face names it: config.json and tensors, in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import (
    LLAMA_FIELDS,
    Row,
    check_architecture,
    drop_copy,
    fill_in,
    from_own,
    to_own,
)

__all__ = ["KEYS", "config_to_groundup", "config_to_huggingface", "to_groundup", "to_huggingface"]

_BLOCK = "model.layers.{}."
_OWN = "blocks.{}."
_ROWS = (
    Row("model.embed_tokens.weight", ("embed.weight",)),
    Row(_BLOCK + "input_layernorm.weight", (_OWN + "attention_norm.weight",)),
    Row(
        _BLOCK + "self_attn.qkv_proj.weight",
        tuple(_OWN + f"attention.{name}.weight" for name in ("query", "key", "value")),
    ),
    Row(_BLOCK + "self_attn.o_proj.weight", (_OWN + "attention.output.weight",)),
    Row(_BLOCK + "post_attention_layernorm.weight", (_OWN + "mlp_norm.weight",)),
    Row(_BLOCK + "mlp.gate_up_proj.weight", (_OWN + "mlp.gate.weight", _OWN + "mlp.up.weight")),
    Row(_BLOCK + "mlp.down_proj.weight", (_OWN + "mlp.down.weight",)),
    Row("model.norm.weight", ("norm.weight",)),
    Row("lm_head.weight", ("head.weight",)),
)
# The names of settings in config.json, and groundup's.
_FIELDS = LLAMA_FIELDS | {"tie_word_embeddings": "tied_embeddings"}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
}
# One way under three names, the last two in old files.
_LONG = ("longrope", "su", "yarn")


# What is read of config.json.
KEYS = frozenset((*_FIELDS, *_DEFAULTS, "hidden_act", "rope_scaling", "rope_parameters"))
KEYS |= {"rope_theta", "partial_rotary_factor", "sliding_window"}


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's. A copy of tied embeddings is left out.
    ``own`` is as ``expected`` of ``to_own``.

    Without ``own`` it is not known where one matrix of the file is to be cut into queries, keys and
    values, unless there are as many of each.
    """
    kept = dict(tensors)
    if config["tied_embeddings"]:
        kept = drop_copy(kept, "lm_head.weight", "model.embed_tokens.weight")
    return to_own(_ROWS, kept, config["layers"], own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of Phi-3 from the contents of config.json. Its kinds of dropout are
    not taken over.

    Raises:
        CheckpointError: If the model is of another family, or has a part that groundup's lacks.
    """
    family = config.get("model_type")
    activation = config.get("hidden_act", "silu")
    if family != "phi3" or activation != "silu":
        found = f"model_type {family}, activation {activation}; supported: phi3; silu"
        raise CheckpointError("config.json", found, "Use another model")
    check_architecture(config, ("Phi3ForCausalLM",))
    full = fill_in(_DEFAULTS, config)
    full.setdefault("num_key_value_heads", full["num_attention_heads"])
    rope = full.get("rope_scaling") or full.get("rope_parameters") or {}
    share = rope.get("partial_rotary_factor", full.get("partial_rotary_factor", 1.0))
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        "rope_theta": float(rope.get("rope_theta", full.get("rope_theta", 10000.0))),
        "rotary_share": float(share),
        "long_rope": _long_rope(rope, full),
        "sliding_window": full.get("sliding_window"),
    }


def _long_rope(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of ``LongRope``, or None."""
    # Old files say type, newer ones rope_type.
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in _LONG:
        problem = f"rotary scaling {kind}; supported for phi3: default, {', '.join(_LONG)}"
        raise CheckpointError("config.json", problem, "Use another model")
    original = config["original_max_position_embeddings"]
    factor = rope.get("factor") or config["max_position_embeddings"] / original
    amplitude = rope.get("attention_factor")
    if amplitude is None:
        # Ding et al., LongRoPE, 2024, as transformers computes it; 1 where nothing is stretched.
        amplitude = math.sqrt(1 + math.log(max(factor, 1)) / math.log(original))
    factors = {f"{name}s": list(map(float, rope[name])) for name in ("short_factor", "long_factor")}
    return {"original_context": original, "amplitude": amplitude, **factors}


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of Phi-3, those that follow from
    others filled in."""
    long = config["long_rope"]
    share = config["rotary_share"]
    values: dict[str, Any] = {hf: config[own] for hf, own in _FIELDS.items()} | {
        "hidden_act": "silu"
    }
    values |= {"sliding_window": config["sliding_window"], "rope_theta": config["rope_theta"]}
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": config["rope_theta"],
        "partial_rotary_factor": share,
    }
    if long:
        original = long["original_context"]
        rope |= {"rope_type": "longrope", "attention_factor": long["amplitude"]}
        rope |= {name: list(long[f"{name}s"]) for name in ("short_factor", "long_factor")}
        rope["original_max_position_embeddings"] = original
        values["original_max_position_embeddings"] = original
        # Where readers before transformers 5 look.
        values["rope_scaling"] = rope
    # Or transformers takes 32000, which a smaller vocabulary has not.
    values["pad_token_id"] = None
    values |= {"rope_parameters": rope, "partial_rotary_factor": share}
    return {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], **values}
