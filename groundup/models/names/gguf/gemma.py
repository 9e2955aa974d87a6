"""Gemma 3 as GGUF files name it: metadata and tensors, in both directions.

Norms are stored with the 1 added that the weights of ours lack. Of the scale of attention a file
says nothing: readers take the channels of a head, and in models of 62 layers the width over the
    number of heads.

Shape legend: V vocabulary, C width, Q heads x head_dim, K kv_heads x head_dim, D head_dim, F
    mlp_width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.models.names.gguf.metadata import (
    KEEP,
    OTHER,
    REQUIRED,
    check_head_dim,
    given_fields,
    refuse_parts,
    shapes_of,
)
from groundup.models.names.table import Row, from_ours, to_ours

__all__ = ["config_to_gguf", "config_to_groundup", "shapes", "to_gguf", "to_groundup"]

_NAME = "gemma3"
_BLOCK = {  # theirs: ours, and its shape in the letters above
    "attn_norm": ("attention_norm", "C"),
    "attn_q": ("attention.query", "QC"),
    "attn_k": ("attention.key", "KC"),
    "attn_v": ("attention.value", "KC"),
    "attn_output": ("attention.output", "CQ"),
    "attn_q_norm": ("attention.query_norm", "D"),
    "attn_k_norm": ("attention.key_norm", "D"),
    "post_attention_norm": ("attention_out_norm", "C"),
    "ffn_norm": ("mlp_norm", "C"),
    "ffn_gate": ("mlp.gate", "FC"),
    "ffn_up": ("mlp.up", "FC"),
    "ffn_down": ("mlp.down", "CF"),
    "post_ffw_norm": ("mlp_out_norm", "C"),
}
_ROWS = (
    Row("token_embd.weight", ("embed.weight",)),
    *(
        Row(f"blk.{{}}.{theirs}.weight", (f"blocks.{{}}.{ours}.weight",))
        for theirs, (ours, _) in _BLOCK.items()
    ),
    Row("output_norm.weight", ("norm.weight",)),
)
_FIELDS = {  # metadata, after the architecture's name: ours
    "context_length": "context_length",
    "block_count": "layers",
    "embedding_length": "width",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "feed_forward_length": "mlp_width",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "local_rope_theta",
    "vocab_size": "vocabulary_size",
}
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_SCALING, _FACTOR, _CAP = "rope.scaling.type", "rope.scaling.factor", "final_logit_softcapping"
_HARMLESS: dict[str, tuple[Any, ...]] = {
    **{"expert_count": (0,), "attention.causal": (True,), "attn_logit_softcapping": (0.0,)},
    **{"rope.scale_linear": (1.0,), _SCALING: ("none", "linear")},
}
_PERIOD = 6  # where a file does not say it
_LARGEST = 62  # layers of the size whose attention is scaled by another number


def config_to_groundup(
    metadata: Mapping[str, Any], tensors: Collection[str], rows: int
) -> dict[str, Any]:
    """Return the settings of our Gemma 3; arguments as of ``names.gguf.config_to_groundup``.

    Raises:
        CheckpointError: If something is missing, or the model has a part that ours lacks.
    """
    local = {_WINDOW} if metadata.get(f"{_NAME}.{_WINDOW}", 0) != 0 else set()
    stretched = {_FACTOR} if metadata.get(f"{_NAME}.{_SCALING}") == "linear" else set()
    capped = {_CAP} if metadata.get(f"{_NAME}.{_CAP}", 0) != 0 else set()
    fields = {*_FIELDS, "rope.dimension_count", *local, *stretched, *capped}
    given = given_fields(
        _NAME, metadata, fields, tensors, (*REQUIRED, "attention.head_count_kv", *stretched)
    )
    check_head_dim(
        _NAME, given, ("attention.key_length", "attention.value_length", "rope.dimension_count")
    )
    refuse_parts(_NAME, metadata, _HARMLESS)
    values: dict[str, Any] = {
        "head_dim": given["embedding_length"] // given["attention.head_count"]
    }
    values |= {ours: given[key] for key, ours in _FIELDS.items() if key in given}
    scale = _scale(values)
    return (
        {"rope_theta": 10000.0, "local_rope_theta": 10000.0}
        | values
        | {
            "vocabulary_size": rows,
            "sliding_window": given.get(_WINDOW, values["context_length"]),
            "global_every": _global_every(metadata, values["layers"]) if local else 1,
            "rope_scaling": {"kind": "linear", "factor": given[_FACTOR]} if stretched else None,
            "attention_scale": None if scale == values["head_dim"] else scale,
            "logit_cap": given.get(_CAP),
        }
    )


def _scale(config: Mapping[str, Any]) -> float:
    """Return what llama.cpp divides products of queries and keys by the root of."""
    return float(
        config["width"] // config["heads"] if config["layers"] == _LARGEST else config["head_dim"]
    )


def _global_every(metadata: Mapping[str, Any], layers: int) -> int:
    """Return n where each n-th layer is global; one more than there are layers where none is."""
    pattern = metadata.get(f"{_NAME}.{_PATTERN}", _PERIOD)
    if type(pattern) is int and 0 <= pattern < 2**20:
        return pattern or layers + 1
    if isinstance(pattern, list) and len(pattern) == layers:
        every = pattern.index(False) + 1 if False in pattern else layers + 1
        if [bool(local) for local in pattern] == [
            number % every != 0 for number in range(1, layers + 1)
        ]:
            return every
    problem = (
        f"is {str(pattern)[:60]}; allowed: a number, or for each layer whether it is local, that"
        " repeats"
    )
    raise CheckpointError(f"{_NAME}.{_PATTERN}", problem, OTHER)


def config_to_gguf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of all settings of our Gemma 3, those that follow from others filled in.

    Raises:
        CheckpointError: If llama.cpp computes something else of them.
    """
    scaling, wanted = config["rope_scaling"], _scale(config)
    if scaling is not None and scaling["kind"] != "linear":
        problem = (
            f"rotary wavelengths stretched by {scaling['kind']} have no place in a gemma3 GGUF"
            " file: only linear"
        )
        raise CheckpointError("model", problem, KEEP)
    if config["attention_scale"] != wanted:
        problem = (
            f"attention_scale is {config['attention_scale']:g}, and llama.cpp takes {wanted:g} for"
            " such a gemma3"
        )
        raise CheckpointError("model", problem, KEEP)
    values = {f"{_NAME}.{key}": config[ours] for key, ours in _FIELDS.items()}
    if config["global_every"] > 1:  # llama.cpp refuses a window that no layer has
        values |= {
            f"{_NAME}.{_WINDOW}": config["sliding_window"],
            f"{_NAME}.{_PATTERN}": config["global_every"],
        }
    if config["logit_cap"] is not None:
        values[f"{_NAME}.{_CAP}"] = config["logit_cap"]
    if scaling is not None:
        values |= {f"{_NAME}.{_SCALING}": "linear", f"{_NAME}.{_FACTOR}": scaling["factor"]}
    return {"general.architecture": _NAME, "general.type": "model", **values}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a file must have, by their names."""
    sizes = {
        "C": config["width"],
        "D": config["head_dim"],
        "F": config["mlp_width"],
        "V": config["vocabulary_size"],
    }
    sizes |= {
        "Q": config["heads"] * config["head_dim"],
        "K": config["kv_heads"] * config["head_dim"],
    }
    block = {f"{theirs}.weight": letters for theirs, (_, letters) in _BLOCK.items()}
    return shapes_of(
        {"token_embd.weight": "VC", "output_norm.weight": "C"}, block, sizes, config["layers"]
    )


def to_groundup(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return our tensors from theirs."""
    return _shifted(to_ours(_ROWS, tensors, config["layers"]), -1.0)


def to_gguf(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return their tensors from ours, the inverse of ``to_groundup`` but for rounding the sum of 1
    and a norm."""
    return from_ours(_ROWS, _shifted(tensors, 1.0), config["layers"])


def _shifted(tensors: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Return tensors with a number added to the weights of norms, in float32."""
    return {
        name: tensor.float() + by if name.endswith("norm.weight") else tensor
        for name, tensor in tensors.items()
    }
