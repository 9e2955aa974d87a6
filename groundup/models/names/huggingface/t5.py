"""T5, as first published and version 1.1, as Hugging Face names it: config.json and tensors, in
both directions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.two_stacks import (
    check_two_stacks,
    differing_settings,
    drop_embedding_copies,
)
from groundup.models.names.table import Row, drop_copy, fill_in, from_own, to_own

__all__ = [
    "KEYS",
    "config_to_groundup",
    "config_to_huggingface",
    "differences",
    "to_groundup",
    "to_huggingface",
]

log = logging.getLogger("groundup")

# The names of settings in config.json, and groundup's.
_FIELDS = {
    "vocab_size": "vocabulary_size",
    "n_positions": "context_length",
    "num_layers": "layers",
    "num_decoder_layers": "decoder_layers",
    "d_model": "width",
    "num_heads": "heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_width",
    "layer_norm_epsilon": "norm_eps",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_distance",
    "dropout_rate": "dropout",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128,
    "n_positions": 512,
    "num_layers": 6,
    "d_model": 512,
    "num_heads": 8,
    "d_kv": 64,
    "d_ff": 2048,
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "feed_forward_proj": "relu",
    "pad_token_id": 0,
}
_ACTIVATIONS = {
    "relu": "relu",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gated-gelu": "geglu_tanh",
    "gated-gelu_new": "geglu_tanh",
    "gated-silu": "swiglu",
}
_FROM_ACTIVATION = {own: hf for hf, own in _ACTIVATIONS.items()} | {"geglu_tanh": "gated-gelu"}
# What of groundup's settings is the same in all that are a T5.
_FIXED = {
    "positions": "relative",
    "norm": "rmsnorm",
    "norm_placement": "pre",
    "bias": "none",
    "attention_scale": 1.0,
    "embedding_norm": False,
    "embedding_scale": False,
    "output_bias": False,
    "position_offset": 0,
    "padding_id": None,
    "source_vocabulary_size": 0,
}

KEYS = frozenset((*_FIELDS, *_DEFAULTS, "tie_word_embeddings", "scale_decoder_outputs"))
KEYS |= {"dense_act_fn", "is_gated_act", "is_decoder", "initializer_factor"}

_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "output"}
_MLP = {"wi": "up", "wi_0": "gate", "wi_1": "up", "wo": "down"}
_BIAS = "{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# Files of the first conversions hold it; attention to the input has no positions.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def _rows(config: Mapping[str, Any]) -> tuple[Row, ...]:
    encoder = int(config["layers"])
    rows = [
        Row("shared.weight", ("embed.weight",)),
        Row("lm_head.weight", ("head.weight",)),
        Row(_BIAS.format("encoder"), ("positions_source.weight",)),
        Row(_BIAS.format("decoder"), ("positions_target.weight",)),
        Row("encoder.final_layer_norm.weight", (f"blocks.{encoder - 1}.last_norm.weight",)),
        Row("decoder.final_layer_norm.weight", ("norm.weight",)),
    ]
    for layer in range(encoder):
        rows += _block(f"encoder.block.{layer}.layer.", f"blocks.{layer}.", decodes=False)
    for layer in range(config["decoder_layers"]):
        own = f"blocks.{encoder + layer}."
        rows += _block(f"decoder.block.{layer}.layer.", own, decodes=True)
    # Version 1.1 has a second matrix, and the first one has another name.
    absent = ".wi." if config["activation"] in ("swiglu", "geglu_tanh") else ".wi_"
    return tuple(row for row in rows if absent not in row.stored)


def _block(hf: str, own: str, *, decodes: bool) -> list[Row]:
    attentions = [("SelfAttention", "attention")]
    if decodes:
        attentions.append(("EncDecAttention", "cross_attention"))
    rows = []
    for place, (theirs, ours) in enumerate(attentions):
        norm = f"{ours.removesuffix('_attention')}_norm.weight"
        rows.append(Row(f"{hf}{place}.layer_norm.weight", (own + norm,)))
        rows += [
            Row(f"{hf}{place}.{theirs}.{a}.weight", (f"{own}{ours}.{b}.weight",))
            for a, b in _ATTENTION.items()
        ]
    last = f"{hf}{len(attentions)}."
    rows.append(Row(f"{last}layer_norm.weight", (f"{own}mlp_norm.weight",)))
    rows += [
        Row(f"{last}DenseReluDense.{a}.weight", (f"{own}mlp.{b}.weight",)) for a, b in _MLP.items()
    ]
    return rows


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's. Copies of tied embeddings are left out.

    ``own`` is as ``expected`` of ``to_own``.
    """
    kept = drop_embedding_copies(tensors, "shared.weight", "")
    if kept.pop(_UNUSED, None) is not None:
        log.info("left out of the pretrained weights: %s, which nothing reads", _UNUSED)
    if config["tied_embeddings"]:
        kept = drop_copy(kept, "lm_head.weight", "shared.weight")
    return to_own(_rows(config), kept, 0, own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_rows(config), tensors, 0)


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``encoder_decoder`` from the contents of config.json.

    Raises:
        CheckpointError: If the model has a part that groundup's lacks.
    """
    check_two_stacks(config, ("T5ForConditionalGeneration", "T5WithLMHeadModel"))
    full = fill_in(_DEFAULTS, config)
    full.setdefault("num_decoder_layers", full["num_layers"])
    activation = full["feed_forward_proj"]
    if activation not in _ACTIVATIONS:
        problem = f"feed_forward_proj {activation}; known: {', '.join(_ACTIVATIONS)}"
        raise CheckpointError("config.json", problem, "Use another model")
    tied = full.get("tie_word_embeddings", True)
    return {own: full[hf] for hf, own in _FIELDS.items()} | {
        **_FIXED,
        "activation": _ACTIVATIONS[activation],
        "tied_embeddings": tied,
        # Old files say it by the tie alone: scaled where the embedding is the output layer.
        "output_scale": full.get("scale_decoder_outputs", tied),
        "start_id": full.get("decoder_start_token_id", full["pad_token_id"]),
    }


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the contents of config.json from all settings; None where no T5 has these parts."""
    if differences(config)["T5"]:
        return None
    activation = _FROM_ACTIVATION[config["activation"]]
    gated = activation.startswith("gated-")
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        **{hf: config[own] for hf, own in _FIELDS.items()},
        "feed_forward_proj": activation,
        # What readers of old versions would work out themselves.
        "is_gated_act": gated,
        "dense_act_fn": "gelu_new" if activation == "gated-gelu" else activation.split("-")[-1],
        "tie_word_embeddings": config["tied_embeddings"],
        "scale_decoder_outputs": config["output_scale"],
        "is_encoder_decoder": True,
        "decoder_start_token_id": config["start_id"],
        "pad_token_id": config["start_id"],
    }


def differences(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what T5 has where a model of these settings has something else."""
    return {"T5": differing_settings(config, _FIXED, _FROM_ACTIVATION)}
