"""GPT-2 as Hugging Face names it: config.json and tensors, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.table import Row, from_ours, to_ours

__all__ = ["config_to_groundup", "config_to_huggingface", "to_groundup", "to_huggingface"]

_BLOCK, _OURS = "transformer.h.{}.", "blocks.{}."
_QKV = tuple(_OURS + f"attention.{name}." for name in ("query", "key", "value"))
_ROWS = (
    Row("transformer.wte.weight", ("embed.weight",)),
    Row("transformer.wpe.weight", ("positions.weight",)),
    *(
        Row(_BLOCK + f"{theirs}.{kind}", (_OURS + f"{ours}.{kind}",), transposed=linear and kind == "weight")
        for theirs, ours, linear in (
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
_FIELDS = {  # config.json: ours
    "vocab_size": "vocabulary_size",
    "n_positions": "context_length",
    "n_layer": "layers",
    "n_embd": "width",
    "n_head": "heads",
    "layer_norm_epsilon": "norm_eps",
}


def to_groundup(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our tensors from theirs. Tied copies and the constant masks of old files are left out."""
    constant = (".attn.bias", ".attn.masked_bias")
    kept = {
        (name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"): tensor
        for name, tensor in tensors.items()
        if not name.endswith(constant) and not (config["tied_embeddings"] and name == "lm_head.weight")
    }
    return to_ours(_ROWS, kept, config["layers"])


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return their tensors from ours."""
    return from_ours(_ROWS, tensors, config["layers"])


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of our GPT from the contents of config.json. Its three kinds of dropout are not taken over.

    Raises:
        CheckpointError: If the activation is not one of ours.
    """
    activation = config.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise CheckpointError(
            "config.json", f"activation {activation}; known: {', '.join(_ACTIVATIONS)}", "Use another model"
        )
    return {
        **{ours: config[theirs] for theirs, ours in _FIELDS.items()},
        "mlp_width": config.get("n_inner"),
        "activation": _ACTIVATIONS[activation],
        "tied_embeddings": config.get("tie_word_embeddings", True),
        **{"positions": "learned", "norm": "layernorm", "bias": "all"},
    }


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of config.json from all settings of our GPT, those that follow from others filled in.

    Raises:
        CheckpointError: If the model is not a GPT-2.
    """
    plain = config["kv_heads"] == config["heads"] and config["head_dim"] * config["heads"] == config["width"]
    parts = (config["positions"], config["norm"], config["bias"])
    odd = config["activation"] == "swiglu" or config["qk_norm"] or config["sliding_window"] is not None
    if parts != ("learned", "layernorm", "all") or odd or not plain:
        found = f"GPT-2 has no {', '.join(parts)} with {config['activation']}"
        raise CheckpointError("model", found, "Keep it in the project's own layout")
    values = {theirs: config[ours] for theirs, ours in _FIELDS.items()} | {"n_inner": config["mlp_width"]}
    values["activation_function"] = "gelu_new" if config["activation"] == "gelu_tanh" else "gelu"
    values["tie_word_embeddings"] = config["tied_embeddings"]
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **values}
