"""Llama, Qwen2 and Qwen3 as GGUF files name them: metadata and tensors, in both directions.

Shape legend: V vocabulary, C width, Q heads x head_dim, K kv_heads x head_dim, D head_dim, F mlp_width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.formats.gguf import GGUFFile, open_gguf
from groundup.models.names.llama import config_to_huggingface
from groundup.models.names.table import Row, from_ours, to_ours

__all__ = [
    "ARCHITECTURES",
    "config_to_gguf",
    "config_to_groundup",
    "settings_in",
    "settings_of",
    "shapes",
    "to_gguf",
    "to_groundup",
]

ARCHITECTURES = ("llama", "qwen2", "qwen3")

_BLOCK = {  # theirs: ours, and its shape in the letters above
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
    *(Row("blk.{}." + theirs, ("blocks.{}." + ours,)) for theirs, (ours, _) in _BLOCK.items()),
    Row("output_norm.weight", ("norm.weight",)),
    Row("output.weight", ("head.weight",)),
)
_FIELDS = {  # metadata, after the architecture's name: ours
    "context_length": "context_length",
    "block_count": "layers",
    "embedding_length": "width",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "feed_forward_length": "mlp_width",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocabulary_size",
}
_REQUIRED = (
    *("context_length", "block_count", "embedding_length", "feed_forward_length", "attention.head_count"),
    "attention.layer_norm_rms_epsilon",
)
_LACKED = {  # metadata that changes what a model computes in a way that ours cannot, with the values that do not
    "expert_count": (0,),
    "attention.sliding_window": (0,),
    "rope.scaling.type": ("none",),
    "rope.scale_linear": (1.0,),
    "attention.causal": (True,),
}
_OTHER = "Use another model"
_KEEP = "Keep it in the project's own layout"


def config_to_groundup(metadata: Mapping[str, Any], tensors: Collection[str], rows: int) -> dict[str, Any]:
    """Return the settings of our GPT.

    Args:
        metadata: The file's.
        tensors: The names of its tensors, which tell whether there are biases and an output layer.
        rows: Of the embedding: the vocabulary's size.

    Raises:
        CheckpointError: If the architecture is not known, something is missing, or the model has a part that ours
            lacks.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        problem = f"is {architecture!r}; supported: {', '.join(ARCHITECTURES)}"
        raise CheckpointError("general.architecture", problem, _OTHER)
    given = {key: metadata[f"{architecture}.{key}"] for key in _FIELDS if f"{architecture}.{key}" in metadata}
    _check(architecture, metadata, given, tensors)
    heads = given["attention.head_count"]
    values = {"kv_heads": heads, "head_dim": given["embedding_length"] // heads}
    values |= {ours: _plain(given[key]) for key, ours in _FIELDS.items() if key in given}
    return values | {
        "vocabulary_size": rows,
        "rope_theta": _plain(given.get("rope.freq_base", 10000.0)),
        "tied_embeddings": "output.weight" not in tensors,
        "qk_norm": architecture == "qwen3",
        "bias": _bias(tensors),
    }


def settings_of(file: GGUFFile) -> dict[str, Any]:
    """Return the settings of our GPT that an open file is of.

    Raises:
        CheckpointError: As ``config_to_groundup``.
    """
    embedding = file.tensors.get("token_embd.weight")
    return config_to_groundup(file.metadata, file.tensors, embedding.shape[0] if embedding else 0)


def settings_in(path: Path) -> dict[str, Any]:
    """Return the settings of our GPT that the file at a path is of; no weight is read.

    Raises:
        CheckpointError: If it is damaged, or no model that is built here.
    """
    try:
        return settings_of(open_gguf(path))
    except CheckpointError as error:
        problem = error.problem if error.where == str(path) else f"{error.where} {error.problem}"
        raise CheckpointError(str(path), problem, error.remedy) from None


def config_to_gguf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of all settings of our GPT, those that follow from others filled in.

    Raises:
        CheckpointError: If no architecture has this combination of parts.
    """
    if config.get("rope_scaling") is not None:
        raise CheckpointError("model", "stretched rotary wavelengths are not written to GGUF here", _KEEP)
    architecture = str(config_to_huggingface(config)["model_type"])
    if architecture not in ARCHITECTURES:
        problem = f"no GGUF architecture has a sliding window of {config['sliding_window']} here"
        raise CheckpointError("model", problem, _KEEP)
    values = {f"{architecture}.{key}": config[ours] for key, ours in _FIELDS.items()}
    return {"general.architecture": architecture, "general.type": "model", **values}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a file must have, by their names.

    Args:
        config: All settings of our GPT, those that follow from others filled in.
    """
    sizes = {"C": config["width"], "D": config["head_dim"], "F": config["mlp_width"], "V": config["vocabulary_size"]}
    sizes |= {"Q": config["heads"] * config["head_dim"], "K": config["kv_heads"] * config["head_dim"]}
    outer = {"token_embd.weight": "VC", "output_norm.weight": "C"}
    outer |= {} if config["tied_embeddings"] else {"output.weight": "VC"}
    block = {theirs: letters for theirs, (_, letters) in _BLOCK.items() if _exists(theirs, config)}
    numbered = {f"blk.{n}.{theirs}": letters for n in range(config["layers"]) for theirs, letters in block.items()}
    return {name: tuple(sizes[letter] for letter in letters) for name, letters in (outer | numbered).items()}


def _exists(theirs: str, config: Mapping[str, Any]) -> bool:
    if theirs.endswith(".bias"):
        inputs = theirs.startswith(("attn_q", "attn_k", "attn_v"))
        return config["bias"] == "all" or (config["bias"] == "qkv" and inputs)
    return config["qk_norm"] or not theirs.startswith(("attn_q_norm", "attn_k_norm"))


def to_groundup(tensors: Mapping[str, Tensor], config: Mapping[str, Any], architecture: str) -> dict[str, Tensor]:
    """Return our tensors from theirs.

    Raises:
        CheckpointError: If a tensor of theirs has no place in ours.
    """
    ours = to_ours(_ROWS, tensors, config["layers"])
    if architecture == "llama":
        ours = {name: _turned(name, tensor, config, (-1, 2)) for name, tensor in ours.items()}
    return ours


def to_gguf(tensors: Mapping[str, Tensor], config: Mapping[str, Any], architecture: str) -> dict[str, Tensor]:
    """Return their tensors from ours, the inverse of ``to_groundup``.

    Raises:
        CheckpointError: If a tensor of ours has no name there.
    """
    if architecture == "llama":
        tensors = {name: _turned(name, tensor, config, (2, -1)) for name, tensor in tensors.items()}
    return from_ours(_ROWS, tensors, config["layers"])


def _turned(name: str, tensor: Tensor, config: Mapping[str, Any], pairs: tuple[int, int]) -> Tensor:
    """Return a projection with the channels of each head in the other order; any other tensor as it is.

    Rotary positions turn channels in pairs. Ours, as Hugging Face's, are channel i and i + D/2 of a head; in GGUF files
    of the architecture ``llama`` they are neighbours, 2i and 2i + 1.
    """
    heads = {"query": config["heads"], "key": config.get("kv_heads") or config["heads"]}
    part = name.removesuffix(".weight").removesuffix(".bias").rpartition("attention.")[2]
    if part not in heads:
        return tensor
    split = tensor.reshape(heads[part], *pairs, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape)


def _check(architecture: str, metadata: Mapping[str, Any], given: Mapping[str, Any], tensors: Collection[str]) -> None:
    for key in _REQUIRED:
        if key not in given:
            raise CheckpointError(f"{architecture}.{key}", "is missing", "Convert the model again")
    for key, value in given.items():
        kind = float if key.endswith(("epsilon", "freq_base")) else int
        limit = 2**31 if key in ("context_length", "vocab_size", "rope.freq_base") else 2**20
        if type(value) is not kind or not 0 < value < limit:
            problem = f"is {str(value)[:60]}; allowed: one number from 0 to {limit}, the same for every layer"
            raise CheckpointError(f"{architecture}.{key}", problem, _OTHER)
    dims = {given[key] for key, ours in _FIELDS.items() if ours == "head_dim" and key in given}
    if not {"attention.key_length", "attention.value_length"} & set(given):
        dims.add(given["embedding_length"] // given["attention.head_count"])
    if len(dims) > 1:
        found = f"heads have {' and '.join(map(str, sorted(dims)))} channels for keys, values and rotary positions"
        raise CheckpointError(f"{architecture}.attention.key_length", f"{found}; ours have one number", _OTHER)
    for key, harmless in _LACKED.items():
        value = metadata.get(f"{architecture}.{key}", harmless[0])
        if value not in harmless:
            raise CheckpointError(f"{architecture}.{key}", f"is {value!r}, which is not built here", _OTHER)
    if given["block_count"] > len(tensors):
        problem = f"is {given['block_count']}, and the file has {len(tensors)} tensors"
        raise CheckpointError(f"{architecture}.block_count", problem, "Download it again")
    if any(name.startswith("rope_") for name in tensors):
        raise CheckpointError("rope_freqs.weight", "stretches the rotary wavelengths, which is not built here", _OTHER)


def _bias(tensors: Collection[str]) -> str:
    """A bias that only some of the layers have is found when the tensors are."""
    if "blk.0.attn_output.bias" in tensors:
        return "all"
    return "qkv" if "blk.0.attn_q.bias" in tensors else "none"


def _plain(value: float) -> float:
    """Return 1e-05 for what float32 makes of it, 9.999999747378752e-06; an integer as it is."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
