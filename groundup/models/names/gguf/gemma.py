"""Gemma 3 as GGUF files name it: metadata and tensors, in both directions.

Norms are stored with the 1 added that groundup's weights lack. Of the scale of attention a file
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
    FIELDS,
    KEEP,
    OTHER,
    REQUIRED,
    check_head_dim,
    given_fields,
    letter_sizes,
    refuse_parts,
    shapes_of,
    stretched,
)
from groundup.models.names.table import Row, from_own, to_own

__all__ = ["config_to_gguf", "config_to_groundup", "shapes", "to_gguf", "to_groundup"]

_NAME = "gemma3"
# The file's name: groundup's, and its shape in the letters above.
_BLOCK = {
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
        Row(f"blk.{{}}.{stored}.weight", (f"blocks.{{}}.{own}.weight",))
        for stored, (own, _) in _BLOCK.items()
    ),
    Row("output_norm.weight", ("norm.weight",)),
)
_FIELDS = FIELDS | {
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.freq_base_swa": "local_rope_theta",
}
_WINDOW = "attention.sliding_window"
_PATTERN = "attention.sliding_window_pattern"
_SCALING = "rope.scaling.type"
_FACTOR = "rope.scaling.factor"
_CAP = "final_logit_softcapping"
# What would change the model's numbers if it were otherwise.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.causal": (True,),
    "attn_logit_softcapping": (0.0,),
    "rope.scale_linear": (1.0,),
    _SCALING: ("none", "linear"),
}
# The period of global layers where a file does not say it.
_PERIOD = 6
# Layers of the size whose attention is scaled by another number.
_LARGEST = 62


def config_to_groundup(
    metadata: Mapping[str, Any], tensors: Collection[str], rows: int
) -> dict[str, Any]:
    """Return the settings of Gemma 3; arguments as of ``names.gguf.config_to_groundup``.

    Raises:
        CheckpointError: If something is missing, or the model has a part that groundup's lacks.
    """
    # A window or a cap of 0 is none, and no positive number.
    local = metadata.get(f"{_NAME}.{_WINDOW}", 0) != 0
    capped = metadata.get(f"{_NAME}.{_CAP}", 0) != 0
    stretched = metadata.get(f"{_NAME}.{_SCALING}") == "linear"
    optional = {_WINDOW: local, _CAP: capped, _FACTOR: stretched}
    fields = {*_FIELDS, "rope.dimension_count", *(key for key, there in optional.items() if there)}
    required = [*REQUIRED, "attention.head_count_kv"]
    if stretched:
        required.append(_FACTOR)
    given = given_fields(_NAME, metadata, fields, tensors, required)
    check_head_dim(
        _NAME, given, ("attention.key_length", "attention.value_length", "rope.dimension_count")
    )
    refuse_parts(_NAME, metadata, _HARMLESS)
    values: dict[str, Any] = {
        "head_dim": given["embedding_length"] // given["attention.head_count"]
    }
    values |= {own: given[key] for key, own in _FIELDS.items() if key in given}
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
    if config["layers"] == _LARGEST:
        return float(config["width"] // config["heads"])
    return float(config["head_dim"])


def _global_every(metadata: Mapping[str, Any], layers: int) -> int:
    """Return n where each n-th layer is global; one more than there are layers where none is."""
    pattern = metadata.get(f"{_NAME}.{_PATTERN}", _PERIOD)
    if type(pattern) is int and 0 <= pattern < 2**20:
        return pattern or layers + 1
    if isinstance(pattern, list) and len(pattern) == layers:
        # The first global layer tells the period; one more at the end is there when none is.
        every = [*pattern, False].index(False) + 1
        if list(map(bool, pattern)) == [n % every != 0 for n in range(1, layers + 1)]:
            return every
    raise CheckpointError(
        f"{_NAME}.{_PATTERN}",
        f"is {str(pattern)[:60]}; allowed: a number, or for each layer whether it is local, that"
        " repeats",
        OTHER,
    )


def config_to_gguf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of all settings of Gemma 3, those that follow from others filled in.

    Raises:
        CheckpointError: If llama.cpp computes something else of them.
    """
    scaling = stretched(config)
    wanted = _scale(config)
    if scaling is not None and scaling["kind"] != "linear":
        raise CheckpointError(
            "model",
            f"rotary wavelengths stretched by {scaling['kind']} have no place in a gemma3 GGUF"
            " file: only linear",
            KEEP,
        )
    if config["attention_scale"] != wanted:
        raise CheckpointError(
            "model",
            f"attention_scale is {config['attention_scale']:g}, but llama.cpp takes {wanted:g} for"
            " such a gemma3",
            KEEP,
        )
    values = {f"{_NAME}.{key}": config[own] for key, own in _FIELDS.items()}
    # llama.cpp refuses a window that no layer has.
    if config["global_every"] > 1:
        values |= {
            f"{_NAME}.{_WINDOW}": config["sliding_window"],
            f"{_NAME}.{_PATTERN}": config["global_every"],
        }
    # Absent means none: published files leave it out.
    if config["logit_cap"] is not None:
        values[f"{_NAME}.{_CAP}"] = config["logit_cap"]
    if scaling is not None:
        values |= {f"{_NAME}.{_SCALING}": "linear", f"{_NAME}.{_FACTOR}": scaling["factor"]}
    return {"general.architecture": _NAME, "general.type": "model", **values}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a file must have, by their names."""
    block = {f"{stored}.weight": letters for stored, (_, letters) in _BLOCK.items()}
    outer = {"token_embd.weight": "VC", "output_norm.weight": "C"}
    return shapes_of(outer, block, letter_sizes(config), config["layers"])


def to_groundup(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's."""
    # Files hold 1 + the weight of every norm.
    return _shift_norms(to_own(_ROWS, tensors, config["layers"]), -1.0)


def to_gguf(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's, the inverse of ``to_groundup`` but for rounding
    the sum of 1 and a norm."""
    return from_own(_ROWS, _shift_norms(tensors, 1.0), config["layers"])


def _shift_norms(tensors: Mapping[str, Tensor], by: float) -> dict[str, Tensor]:
    """Return tensors with a number added to the weights of norms, in float32."""
    return {
        name: tensor.float() + by if name.endswith("norm.weight") else tensor
        for name, tensor in tensors.items()
    }
