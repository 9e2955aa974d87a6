"""BART and Marian as Hugging Face names them: config.json and tensors, in both directions.

Marian's models are BARTs whose positions are sinusoids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.huggingface.two_stacks import (
    check_equal,
    check_two_stacks,
    differing_settings,
    drop_embedding_copies,
    rows_of_blocks,
    rows_with_bias,
)
from groundup.models.names.table import (
    Row,
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
    "differences",
    "to_groundup",
    "to_huggingface",
]

FAMILIES = ("bart", "marian")
_NAMES = {"bart": "BART", "marian": "Marian"}
_CLASSES = {"bart": "BartForConditionalGeneration", "marian": "MarianMTModel"}
# The rows that BART's table of positions has before that of the first position.
_OFFSET = 2

# The names of settings in config.json, and groundup's.
_FIELDS = {
    "vocab_size": "vocabulary_size",
    "max_position_embeddings": "context_length",
    "encoder_layers": "layers",
    "decoder_layers": "decoder_layers",
    "d_model": "width",
    "encoder_attention_heads": "heads",
    "encoder_ffn_dim": "mlp_width",
    "scale_embedding": "embedding_scale",
    "tie_word_embeddings": "tied_embeddings",
    "pad_token_id": "padding_id",
    "decoder_start_token_id": "start_id",
    "dropout": "dropout",
    "init_std": "init_std",
}
# Of transformers, for what config.json leaves out.
_DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "d_model": 1024,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "scale_embedding": False,
    "tie_word_embeddings": True,
    "dropout": 0.1,
    "init_std": 0.02,
}
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "bart": {"vocab_size": 50265, "pad_token_id": 1, "decoder_start_token_id": 2},
    "marian": {"vocab_size": 58101, "pad_token_id": 58100, "decoder_start_token_id": 58100},
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_FROM_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
# What of groundup's settings is the same in all of a family.
_FIXED: dict[str, Any] = {
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "norm_placement": "post",
    "bias": "all",
    "attention_scale": None,
    "output_scale": False,
    "output_bias": True,
}
_OF_FAMILY: dict[str, dict[str, Any]] = {
    "bart": {
        "positions": "learned",
        "position_offset": _OFFSET,
        "embedding_norm": True,
        "source_vocabulary_size": 0,
    },
    "marian": {"positions": "sinusoidal", "position_offset": 0, "embedding_norm": False},
}
# Parts that change what is computed, and that are not built otherwise.
_PLAIN = {
    "add_final_layer_norm": False,
    "normalize_before": False,
    "add_bias_logits": False,
    "static_position_embeddings": False,
}

KEYS = frozenset((*_FIELDS, *_DEFAULTS, *_PLAIN, "decoder_vocab_size", "num_hidden_layers"))
KEYS |= {"share_encoder_decoder_embeddings"}
KEYS |= {"encoder_layerdrop", "decoder_layerdrop", "is_decoder", "normalize_embedding"}
# Of generation, which a recipe or a call decides.
KEYS |= {"max_length", "num_beams", "bad_words_ids", "early_stopping", "no_repeat_ngram_size"}
KEYS |= {"min_length", "length_penalty", "forced_bos_token_id", "force_bos_token_to_be_generated"}
KEYS |= {"extra_pos_embeddings", "decoder_max_length", "encoder_no_repeat_ngram_size"}


def _rows(config: Mapping[str, Any]) -> tuple[Row, ...]:
    rows = [
        Row(_embedding(config), ("embed.weight",)),
        Row("lm_head.weight", ("head.weight",)),
        Row("final_logits_bias", ("output_bias",), leading=1),
    ]
    for stack, side in (("encoder", "source"), ("decoder", "target")):
        own = f"embed_{side}_norm"
        rows.append(Row(f"model.{stack}.embed_positions.weight", (f"positions_{side}.weight",)))
        rows += rows_with_bias(f"model.{stack}.layernorm_embedding", own)
    if config["positions"] == "sinusoidal":
        rows = [row for row in rows if "embed_positions" not in row.stored]
    if config["source_vocabulary_size"]:
        rows.append(Row("model.encoder.embed_tokens.weight", ("embed_source.weight",)))
    if not config["embedding_norm"]:
        rows = [row for row in rows if "layernorm_embedding" not in row.stored]
    return (*rows, *rows_of_blocks(config["layers"], config["decoder_layers"]))


def _embedding(config: Mapping[str, Any]) -> str:
    """Return the name of the outputs' embedding: that of both sides, where they share one."""
    apart = bool(config["source_vocabulary_size"])
    return "model.decoder.embed_tokens.weight" if apart else "model.shared.weight"


def to_groundup(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    own: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's, with the prefix ``model.`` or without.

    Copies of tied embeddings are left out, and so are tables of sinusoids, which are computed, and
    learned positions beyond the context's length. Where the file has no bias of the logits, it is
    0. ``own`` is as ``expected`` of ``to_own``.
    """
    kept = {
        f"model.{name}" if name.startswith(("shared.", "encoder.", "decoder.")) else name: tensor
        for name, tensor in tensors.items()
    }
    embedding = _embedding(config)
    if not config["source_vocabulary_size"]:
        kept = drop_embedding_copies(kept, embedding, "model.")
    if config["tied_embeddings"]:
        kept = drop_copy(kept, "lm_head.weight", embedding)
    for stack in ("encoder", "decoder"):
        name = f"model.{stack}.embed_positions.weight"
        # New versions of the library write the table that old ones computed.
        if config["positions"] == "sinusoidal":
            kept.pop(name, None)
        elif name in kept:
            kept[name] = kept[name][: config["context_length"] + config["position_offset"]]
    if "final_logits_bias" not in kept and embedding in kept:
        rows = kept[embedding]
        kept["final_logits_bias"] = rows.new_zeros(1, len(rows))
    return to_own(_rows(config), kept, 0, own)


def to_huggingface(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's."""
    return from_own(_rows(config), tensors, 0)


def config_to_groundup(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``encoder_decoder`` from the contents of config.json.

    Raises:
        CheckpointError: If the model has a part that groundup's lacks.
    """
    family = str(config["model_type"])
    bare = {"bart": "BartModel", "marian": "MarianModel"}
    check_two_stacks(config, (_CLASSES[family], bare[family]))
    refuse_other_values(config, _PLAIN)
    # Marian's languages may have a vocabulary each.
    shared = config.get("share_encoder_decoder_embeddings") is not False
    if family != "marian":
        refuse_other_values(config, {"share_encoder_decoder_embeddings": True})
    full = fill_in(_DEFAULTS | _OWN_DEFAULTS[family], config)
    pairs = [
        ("encoder_attention_heads", "decoder_attention_heads"),
        ("encoder_ffn_dim", "decoder_ffn_dim"),
    ]
    if shared:
        pairs.append(("vocab_size", "decoder_vocab_size"))
    check_equal(full, pairs)
    activation = full["activation_function"]
    if activation not in _ACTIVATIONS:
        problem = f"activation_function {activation}; known: {', '.join(_ACTIVATIONS)}"
        raise CheckpointError("config.json", problem, "Use another model")
    found = {own: full[hf] for hf, own in _FIELDS.items()} | {
        **_FIXED,
        "source_vocabulary_size": 0,
        **_OF_FAMILY[family],
        "activation": _ACTIVATIONS[activation],
    }
    if not shared:
        found["source_vocabulary_size"] = full["vocab_size"]
        found["vocabulary_size"] = full.get("decoder_vocab_size", full["vocab_size"])
    return found


def config_to_huggingface(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the contents of config.json from all settings; None where neither family has these
    parts."""
    fitting = [family for family, others in differences(config).items() if not others]
    if not fitting:
        return None
    family = fitting[0].lower()  # as model_type has it
    values = {hf: config[own] for hf, own in _FIELDS.items()} | {
        "decoder_attention_heads": config["heads"],
        "decoder_ffn_dim": config["mlp_width"],
        "activation_function": _FROM_ACTIVATION[config["activation"]],
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "is_encoder_decoder": True,
        # Whether a text has to end at its last token is decided by who generates.
        "forced_eos_token_id": None,
    }
    source = config["source_vocabulary_size"]
    if source:
        values |= {
            "vocab_size": source,
            "decoder_vocab_size": config["vocabulary_size"],
            "share_encoder_decoder_embeddings": False,
        }
    if values["pad_token_id"] is None:
        # A token of both vocabularies: nothing but the gradient of its vector depends on it.
        fits = not 0 < source <= config["start_id"]
        values["pad_token_id"] = config["start_id"] if fits else 0
    return {"model_type": family, "architectures": [_CLASSES[family]], **values}


def differences(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what BART and Marian have where a model of these settings has something else."""
    found = {}
    for family, parts in _OF_FAMILY.items():
        others = differing_settings(config, _FIXED | parts, _FROM_ACTIVATION)
        if config["head_dim"] * config["heads"] != config["width"]:
            others.append(f"head_dim: {config['width'] // config['heads']}")
        found[_NAMES[family]] = others
    return found
