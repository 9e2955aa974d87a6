"""Llama, Qwen2 and Qwen3 as GGUF files name them: metadata and tensors, in both directions.

Shape legend: V vocabulary, C width, Q heads x head_dim, K kv_heads x head_dim, D head_dim, F
    mlp_width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.gguf.metadata import (
    FIELDS,
    KEEP,
    OTHER,
    check_head_dim,
    given_fields,
    letter_sizes,
    refuse_parts,
    shapes_of,
    stretched,
)
from groundup.models.names.huggingface.llama import config_to_huggingface
from groundup.models.names.table import Row, from_own, to_own

__all__ = [
    "ARCHITECTURES",
    "config_to_gguf",
    "config_to_groundup",
    "shapes",
    "to_gguf",
    "to_groundup",
]

ARCHITECTURES = ("llama", "qwen2", "qwen3")

# The file's name: groundup's, and its shape in the letters above.
_BLOCK = {
    "attn_norm.weight": ("attention_norm.weight", "C"),
    "attn_q.weight": ("attention.query.weight", "QC"),
    "attn_q.bias": ("attention.query.bias", "Q"),
    "attn_k.weight": ("attention.key.weight", "KC"),
    "attn_k.bias": ("attention.key.bias", "K"),
    "attn_v.weight": ("attention.value.weight", "KC"),
    "attn_v.bias": ("attention.value.bias", "K"),
    "attn_output.weight": ("attention.output.weight", "CQ"),
    "attn_output.bias": ("attention.output.bias", "C"),
    "attn_q_norm.weight": ("attention.query_norm.weight", "D"),
    "attn_k_norm.weight": ("attention.key_norm.weight", "D"),
    "ffn_norm.weight": ("mlp_norm.weight", "C"),
    "ffn_gate.weight": ("mlp.gate.weight", "FC"),
    "ffn_gate.bias": ("mlp.gate.bias", "F"),
    "ffn_up.weight": ("mlp.up.weight", "FC"),
    "ffn_up.bias": ("mlp.up.bias", "F"),
    "ffn_down.weight": ("mlp.down.weight", "CF"),
    "ffn_down.bias": ("mlp.down.bias", "C"),
}
_ROWS = (
    Row("token_embd.weight", ("embed.weight",)),
    *(Row("blk.{}." + stored, ("blocks.{}." + own,)) for stored, (own, _) in _BLOCK.items()),
    Row("output_norm.weight", ("norm.weight",)),
    Row("output.weight", ("head.weight",)),
)
_FIELDS = FIELDS | {
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
}
# metadata that changes what a model computes in a way that is not built here, with the values that
# do not
_LACKED = {
    "expert_count": (0,),
    "attention.sliding_window": (0,),
    "rope.scaling.type": ("none",),
    "rope.scale_linear": (1.0,),
    "attention.causal": (True,),
}


def config_to_groundup(
    metadata: Mapping[str, Any], tensors: Collection[str], rows: int
) -> dict[str, Any]:
    """Return the settings of GPT.

    Args:
        metadata: The file's.
        tensors: The names of its tensors, which tell whether there are biases and an output layer.
        rows: Of the embedding: the vocabulary's size.

    Raises:
        CheckpointError: If something is missing, or the model has a part that groundup's lacks.
    """
    architecture = str(metadata.get("general.architecture"))
    given = given_fields(architecture, metadata, _FIELDS, tensors)
    check_head_dim(architecture, given, [key for key, own in _FIELDS.items() if own == "head_dim"])
    refuse_parts(architecture, metadata, _LACKED)
    # Llama 3.1 and later: the factors are a tensor there, not settings.
    if any(name.startswith("rope_") for name in tensors):
        raise CheckpointError(
            "rope_freqs.weight", "stretches the rotary wavelengths, which is not built here", OTHER
        )
    heads = given["attention.head_count"]
    values = {"kv_heads": heads, "head_dim": given["embedding_length"] // heads}
    values |= {own: given[key] for key, own in _FIELDS.items() if key in given}
    return values | {
        "vocabulary_size": rows,
        "rope_theta": given.get("rope.freq_base", 10000.0),
        "tied_embeddings": "output.weight" not in tensors,
        "qk_norm": architecture == "qwen3",
        "bias": _bias(tensors),
    }


def config_to_gguf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of all settings of a GPT, those that follow from others filled in.

    Raises:
        CheckpointError: If no architecture has this combination of parts.
    """
    # Llama 3's factors would be a tensor, which is not written here.
    if stretched(config) is not None:
        raise CheckpointError(
            "model", "stretched rotary wavelengths are not written to GGUF here", KEEP
        )
    architecture = str(config_to_huggingface(config)["model_type"])
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            "model",
            f"no GGUF architecture has a sliding window of {config['sliding_window']} here",
            KEEP,
        )
    values = {f"{architecture}.{key}": config[own] for key, own in _FIELDS.items()}
    return {"general.architecture": architecture, "general.type": "model", **values}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a file must have, by the file's names.

    Args:
        config: All settings of the model, those that follow from others filled in.
    """
    outer = {"token_embd.weight": "VC", "output_norm.weight": "C"}
    if not config["tied_embeddings"]:
        outer["output.weight"] = "VC"
    block = {stored: letters for stored, (_, letters) in _BLOCK.items() if _exists(stored, config)}
    return shapes_of(outer, block, letter_sizes(config), config["layers"])


def _exists(stored: str, config: Mapping[str, Any]) -> bool:
    if stored.endswith(".bias"):
        inputs = stored.startswith(("attn_q", "attn_k", "attn_v"))
        return config["bias"] == "all" or (config["bias"] == "qkv" and inputs)
    return config["qk_norm"] or not stored.startswith(("attn_q_norm", "attn_k_norm"))


def to_groundup(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], architecture: str
) -> dict[str, Tensor]:
    """Return groundup's tensors from a file's.

    Args:
        tensors: The file's.
        config: All settings of the GPT, those that follow from others filled in.
        architecture: One of ``ARCHITECTURES``.

    Raises:
        CheckpointError: If a tensor of the file has no place in the GPT.
    """
    own = to_own(_ROWS, tensors, config["layers"])
    if architecture == "llama":
        own = {name: _reorder_pairs(name, tensor, config, (-1, 2)) for name, tensor in own.items()}
    return own


def to_gguf(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's, the inverse of ``to_groundup``.

    Raises:
        CheckpointError: If a tensor of groundup's has no name there.
    """
    # Only files of this architecture have neighbouring pairs.
    if config_to_huggingface(config)["model_type"] == "llama":
        tensors = {
            name: _reorder_pairs(name, tensor, config, (2, -1)) for name, tensor in tensors.items()
        }
    return from_own(_ROWS, tensors, config["layers"])


def _reorder_pairs(
    name: str, tensor: Tensor, config: Mapping[str, Any], pairs: tuple[int, int]
) -> Tensor:
    """Return a projection with the channels of each head in the other order; any other tensor as it
    is.

    Rotary positions turn channels in pairs. Ours, as Hugging Face's, are channel i and i + D/2 of a
    head; in GGUF files of the architecture ``llama`` they are neighbours, 2i and 2i + 1.
    """
    heads = {"query": config["heads"], "key": config.get("kv_heads") or config["heads"]}
    part = name.removesuffix(".weight").removesuffix(".bias").rpartition("attention.")[2]
    if part not in heads:
        return tensor
    # Rows of each head apart: biases have no columns, and are turned alike.
    split = tensor.reshape(heads[part], *pairs, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape)


def _bias(tensors: Collection[str]) -> str:
    """A bias that only some of the layers have is found when the tensors are."""
    # The first layer tells: all have the same parts.
    if "blk.0.attn_output.bias" in tensors:
        return "all"
    return "qkv" if "blk.0.attn_q.bias" in tensors else "none"
