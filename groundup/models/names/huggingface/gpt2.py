"""GPT-2 as Hugging Face names it: config.json and tensors, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import (
    Row,
    check_architecture,
    drop_copy,
    fill_in,
    from_own,
    refuse_other_values,
    to_own,
)

__all__ = ["KEYS", "config_to_groundup", "config_to_huggingface", "to_groundup", "to_huggingface"]

_BLOCK = "transformer.h.{}."
_OWN = "blocks.{}."
_POSITIONS = "transformer.wpe.weight"
_QKV = tuple(_OWN + f"attention.{name}." for name in ("query", "key", "value"))
_ROWS = (
    Row("transformer.wte.weight", ("embed.weight",)),
    Row(_POSITIONS, ("positions.weight",)),
    *(
        Row(
            _BLOCK + f"{hf}.{kind}",
            (_OWN + f"{own}.{kind}",),
            transposed=linear and kind == "weight",
        )
        for hf, own, linear in (
            ("ln_1", "attention_norm", False),
            ("attn.c_proj", "attention.output", True),
            ("ln_2", "mlp_norm", False),
            ("mlp.c_fc", "mlp.up", True),
            ("mlp.c_proj", "mlp.down", True),
        )
        for kind in ("weight", "bias")
    ),
    Row(_BLOCK + "attn.c_attn.weight", tuple(name + "weight" for name in _QKV), transposed=True),
    Row(_BLOCK + "attn.c_attn.bias", tuple(name + "bias" for name in _QKV)),
    Row("transformer.ln_f.weight", ("norm.weight",)),
    Row("transformer.ln_f.bias", ("norm.bias",)),
    Row("lm_head.weight", ("head.weight",)),
)
_ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh"]] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
}
# The names of settings in config.json, and groundup's.
_FIELDS: dict[str, str] = {
    "vocab_size": "vocabulary_size",
    "n_positions": "context_length",
    "n_layer": "layers",
    "n_embd": "width",
    "n_head": "heads",
    "layer_norm_epsilon": "norm_eps",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
}
# What would change the model's numbers if it were otherwise.
_PLAIN = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


# What is read of config.json.
KEYS = frozenset((*_FIELDS, *_PLAIN, "activation_function", "n_inner", "n_ctx"))
KEYS |= {"tie_word_embeddings"}


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's. Tied copies and the constant masks of old files
    are left out.

    So are learned positions beyond the context's length. ``own`` is as ``expected`` of ``to_own``.
    """
    # Masks, which old files hold as if they were weights.
    constant = (".attn.bias", ".attn.masked_bias")
    kept = {
        (name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"): tensor
        for name, tensor in tensors.items()
        if not name.endswith(constant)
    }
    if config["tied_embeddings"]:
        kept = drop_copy(kept, "lm_head.weight", "transformer.wte.weight")
    # A shorter context needs fewer rows.
    if _POSITIONS in kept:
        kept[_POSITIONS] = kept[_POSITIONS][: config["context_length"]]
    return to_own(_ROWS, kept, config["layers"], own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of GPT from the contents of config.json. Its three kinds of dropout
    are not taken over.

    Raises:
        CheckpointError: If the model has a part that groundup's lacks.
    """
    check_architecture(config, ("GPT2LMHeadModel", "GPT2Model"))
    refuse_other_values(config, _PLAIN)
    activation = config.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            "config.json",
            f"activation {activation}; known: {', '.join(_ACTIVATIONS)}",
            "Use another model",
        )
    full = fill_in(_DEFAULTS, config)
    return {
        **{own: full[hf] for hf, own in _FIELDS.items()},
        "kv_heads": full["n_head"],
        "head_dim": full["n_embd"] // full["n_head"],
        "mlp_width": full.get("n_inner", 4 * full["n_embd"]),
        "activation": _ACTIVATIONS[activation],
        "tied_embeddings": full.get("tie_word_embeddings", True),
        "positions": "learned",
        "norm": "layernorm",
        "bias": "all",
    }


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of GPT, those that follow from
    others filled in.

    Raises:
        CheckpointError: If the model is not a GPT-2.
    """
    # It has as many keys as queries, and heads that share out the width.
    plain = (
        config["kv_heads"] == config["heads"]
        and config["head_dim"] * config["heads"] == config["width"]
    )
    parts = (config["positions"], config["norm"], config["bias"])
    odd = (
        config["activation"] == "swiglu"
        or config["qk_norm"]
        or config["sliding_window"] is not None
    )
    if parts != ("learned", "layernorm", "all") or odd or not plain:
        found = f"GPT-2 has no {', '.join(parts)} with {config['activation']}"
        raise CheckpointError("model", found, "Keep it in the project's own layout")
    values = {hf: config[own] for hf, own in _FIELDS.items()} | {"n_inner": config["mlp_width"]}
    values["activation_function"] = "gelu_new" if config["activation"] == "gelu_tanh" else "gelu"
    values["tie_word_embeddings"] = config["tied_embeddings"]
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **values}
