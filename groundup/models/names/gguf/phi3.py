"""Phi-3 as GGUF files name it: metadata and tensors, in both directions.

Queries, keys and values are one matrix there, and so are the two inputs of the MLP. The factors by
which rotary wavelengths were stretched are two tensors.

Shape legend: V vocabulary, C width, A all of queries, keys and values, F mlp_width, G 2 x
    mlp_width, R half the rotary
channels of a head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.models import GGUFContents
from groundup.core.errors import CheckpointError
from groundup.models.names.gguf.metadata import (
    FIELDS,
    KEEP,
    OTHER,
    given_fields,
    plain,
    refuse_parts,
    shapes_of,
)
from groundup.models.names.table import Row, from_own, to_own

__all__ = ["config_to_gguf", "config_to_groundup", "shapes", "to_gguf", "to_groundup"]

_NAME = "phi3"
# The file's names: groundup's, one below the other, and the shape in the letters above.
_BLOCK: dict[str, tuple[tuple[str, ...], str]] = {
    "attn_norm": (("attention_norm",), "C"),
    "attn_qkv": (("attention.query", "attention.key", "attention.value"), "AC"),
    "attn_output": (("attention.output",), "CC"),
    "ffn_norm": (("mlp_norm",), "C"),
    "ffn_up": (("mlp.gate", "mlp.up"), "GC"),
    "ffn_down": (("mlp.down",), "CF"),
}
_ROWS = (
    Row("token_embd.weight", ("embed.weight",)),
    *(
        Row(f"blk.{{}}.{stored}.weight", tuple(f"blocks.{{}}.{name}.weight" for name in own))
        for stored, (own, _) in _BLOCK.items()
    ),
    Row("output_norm.weight", ("norm.weight",)),
    Row("output.weight", ("head.weight",)),
)
_ROTARY = "rope.dimension_count"
_WINDOW = "attention.sliding_window"
_ORIGINAL = "rope.scaling.original_context_length"
_AMPLITUDE = "rope.scaling.attn_factor"
_FACTORS = {
    "long_factors": "rope_factors_long.weight",
    "short_factors": "rope_factors_short.weight",
}
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "attention.causal": (True,),
    "rope.scaling.type": ("none", "longrope"),
    "rope.scale_linear": (1.0,),
}
# llama.cpp opens no shorter context.
_SHORTEST = 256


def config_to_groundup(file: GGUFContents, rows: int) -> dict[str, Any]:
    """Return the settings of Phi-3.

    Args:
        file: An open file: the factors of rotary wavelengths are tensors.
        rows: Of the embedding: the vocabulary's size.

    Raises:
        CheckpointError: If something is missing, or the model has a part that groundup's lacks.
    """
    metadata = file.metadata
    fields = {*FIELDS, _ROTARY, _ORIGINAL, _AMPLITUDE}
    # A window of 0 is none, and no positive number.
    if metadata.get(f"{_NAME}.{_WINDOW}", 0) != 0:
        fields.add(_WINDOW)
    given = given_fields(_NAME, metadata, fields, file.tensors)
    refuse_parts(_NAME, metadata, _HARMLESS)
    heads = given["attention.head_count"]
    dim = given["embedding_length"] // heads
    rotary = given.get(_ROTARY, dim)
    if rotary > dim:
        raise CheckpointError(
            f"{_NAME}.{_ROTARY}", f"is {rotary}, but heads have {dim} channels", OTHER
        )
    values = {"kv_heads": heads, "rope_theta": 10000.0}
    values |= {own: given[key] for key, own in FIELDS.items() if key in given}
    share = rotary / dim
    if int(dim * share) != rotary:
        # Rounding took a channel away: half of one more gives it back.
        share = (rotary + 0.5) / dim
    return values | {
        "vocabulary_size": rows,
        "rotary_share": share,
        "long_rope": _long_rope(file, given),
        "sliding_window": given.get(_WINDOW),
        "tied_embeddings": "output.weight" not in file.tensors,
    }


def _long_rope(file: GGUFContents, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of ``LongRope``, or None."""
    # Both or none: one alone is a damaged file.
    there = {own: stored for own, stored in _FACTORS.items() if stored in file.tensors}
    if not there:
        return None
    missing = {*_FACTORS.values()} - {*there.values()}
    if missing or _ORIGINAL not in given:
        named = min(missing, default=f"{_NAME}.{_ORIGINAL}")
        raise CheckpointError(
            named,
            "is missing, but there are factors of rotary wavelengths",
            "Convert the model again",
        )
    read = {
        own: [plain(float(value)) for value in file.read(stored)] for own, stored in there.items()
    }
    return {"original_context": given[_ORIGINAL], "amplitude": given.get(_AMPLITUDE, 1.0), **read}


def config_to_gguf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of all settings of Phi-3, those that follow from others filled in.

    Raises:
        CheckpointError: If llama.cpp computes something else of them.
    """
    long = config["long_rope"]
    window = config["sliding_window"]
    context = config["context_length"]
    if window is not None and window < context:
        raise CheckpointError(
            "model",
            f"sliding_window is {window} and context_length {context}, but llama.cpp has no window"
            " for phi3",
            f"Train with context_length: {window}, or export to huggingface",
        )
    if long is not None and long["original_context"] < _SHORTEST:
        problem = (
            f"long_rope.original_context is {long['original_context']}, but llama.cpp, whose"
            " context decides"
        )
        problem += f" between short and long factors, opens none below {_SHORTEST}"
        raise CheckpointError("model", problem, KEEP)
    values: dict[str, Any] = {f"{_NAME}.{key}": config[own] for key, own in FIELDS.items()}
    values[f"{_NAME}.{_ROTARY}"] = int(config["width"] // config["heads"] * config["rotary_share"])
    if window is not None:
        values[f"{_NAME}.{_WINDOW}"] = window
    # Readers ask for it; without factors it has no effect.
    values[f"{_NAME}.{_ORIGINAL}"] = context
    if long is not None:
        values[f"{_NAME}.{_ORIGINAL}"] = long["original_context"]
        values[f"{_NAME}.{_AMPLITUDE}"] = float(long["amplitude"])
    return {"general.architecture": _NAME, "general.type": "model", **values}


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a file must have, by their names."""
    width = config["width"]
    dim = width // config["heads"]
    sizes = {
        "C": width,
        "F": config["mlp_width"],
        "G": 2 * config["mlp_width"],
        "V": config["vocabulary_size"],
        "A": width + 2 * config["kv_heads"] * dim,
        "R": int(dim * config["rotary_share"]) // 2,
    }
    outer = {"token_embd.weight": "VC", "output_norm.weight": "C"}
    if not config["tied_embeddings"]:
        outer["output.weight"] = "VC"
    if config["long_rope"]:
        outer |= dict.fromkeys(_FACTORS.values(), "R")
    block = {f"{stored}.weight": letters for stored, (_, letters) in _BLOCK.items()}
    return shapes_of(outer, block, sizes, config["layers"])


def to_groundup(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return groundup's tensors from the file's; ``own`` says where one of the file's is to be cut,
    as ``expected`` of ``to_own``."""
    kept: Collection[str] = [name for name in tensors if name not in _FACTORS.values()]
    return to_own(_ROWS, {name: tensors[name] for name in kept}, config["layers"], own)


def to_gguf(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the file's tensors from groundup's, and the factors of rotary wavelengths."""
    long = config["long_rope"] or {}
    factors = {stored: torch.tensor(long[own]) for own, stored in _FACTORS.items() if own in long}
    return from_own(_ROWS, tensors, config["layers"]) | factors
