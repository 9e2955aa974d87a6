"""What the metadata of all GGUF files share, whatever model they are of: checks, and tables of
shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from groundup.contracts.models import GGUFContents
from groundup.core.errors import CheckpointError
from groundup.core.settings import Settings

__all__ = [
    "FIELDS",
    "KEEP",
    "OTHER",
    "REQUIRED",
    "check_head_dim",
    "embedding_rows_in",
    "given_fields",
    "lengthen",
    "letter_sizes",
    "plain",
    "refuse_parts",
    "shapes_of",
    "stretched",
]

Config = TypeVar("Config", bound=Settings)

OTHER = "Use another model"
KEEP = "Keep it in the project's own layout"
REQUIRED = (
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
# Metadata that all families have (each key follows the architecture's name), and groundup's
# settings.
FIELDS = {
    "context_length": "context_length",
    "block_count": "layers",
    "embedding_length": "width",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "feed_forward_length": "mlp_width",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocabulary_size",
}
_FLOATS = ("epsilon", "freq_base", "freq_base_swa", "softcapping", "factor")
_LARGE = ("context_length", "vocab_size", "rope.freq_base", "attention.sliding_window")


def given_fields(
    architecture: str,
    metadata: Mapping[str, Any],
    fields: Collection[str],
    tensors: Collection[str],
    required: Collection[str] = REQUIRED,
) -> dict[str, Any]:
    """Return those of the metadata ``fields`` that a file has, by their names after the
    architecture's.

    Raises:
        CheckpointError: If a required one is missing, one is not a positive number of its kind, or
            there are more layers than tensors.
    """
    given = {
        key: metadata[f"{architecture}.{key}"]
        for key in fields
        if f"{architecture}.{key}" in metadata
    }
    for key in required:
        if key not in given:
            raise CheckpointError(f"{architecture}.{key}", "is missing", "Convert the model again")
    for key, value in given.items():
        kind = float if key.endswith(_FLOATS) else int
        # A flipped bit must not make a model of a billion layers, which would be built first.
        limit = 2**31 if key in _LARGE else 2**20
        # A boolean is an integer to Python, and a list means one value for each layer.
        if type(value) is not kind or not 0 < value < limit:
            raise CheckpointError(
                f"{architecture}.{key}",
                f"is {str(value)[:60]}; allowed: one number from 0 to {limit}, the same for every"
                " layer",
                OTHER,
            )
    if given["block_count"] > len(tensors):
        raise CheckpointError(
            f"{architecture}.block_count",
            f"is {given['block_count']}, but the file has {len(tensors)} tensors",
            "Download it again",
        )
    return {key: plain(value) for key, value in given.items()}


def embedding_rows_in(file: GGUFContents) -> int:
    """Return the rows of the embedding in a file, which is the vocabulary's size; 0 without one."""
    embedding = file.tensors.get("token_embd.weight")
    return embedding.shape[0] if embedding else 0


def check_head_dim(architecture: str, given: Mapping[str, Any], keys: Collection[str]) -> None:
    """Make sure that all of ``keys`` that are given are the same number of channels of a head.

    Raises:
        CheckpointError: If they are not.
    """
    dims = {given[key] for key in keys if key in given}
    # Without them llama.cpp divides the width by the heads.
    if not {"attention.key_length", "attention.value_length"} & set(given):
        dims.add(given["embedding_length"] // given["attention.head_count"])
    # llama.cpp allows keys and values of different widths.
    if len(dims) > 1:
        found = (
            f"heads have {' and '.join(map(str, sorted(dims)))} channels for keys, values and"
            " rotary positions"
        )
        raise CheckpointError(
            f"{architecture}.attention.key_length", f"{found}; groundup's have one number", OTHER
        )


def refuse_parts(
    architecture: str, metadata: Mapping[str, Any], harmless: Mapping[str, tuple[Any, ...]]
) -> None:
    """Make sure that metadata which change what a model computes have values that groundup
    computes, the first if absent.

    Raises:
        CheckpointError: If one has another.
    """
    for key, values in harmless.items():
        value = metadata.get(f"{architecture}.{key}", values[0])
        if value not in values:
            raise CheckpointError(
                f"{architecture}.{key}", f"is {value!r}, which is not built here", OTHER
            )


def shapes_of(
    outer: Mapping[str, str], block: Mapping[str, str], sizes: Mapping[str, int], layers: int
) -> dict[str, tuple[int, ...]]:
    """Return shapes by tensor name, from letters that mean sizes; those of a block once for
    each layer."""
    numbered = {
        f"blk.{n}.{stored}": letters for n in range(layers) for stored, letters in block.items()
    }
    return {
        name: tuple(sizes[letter] for letter in letters)
        for name, letters in {**outer, **numbered}.items()
    }


def lengthen(config: Config, context_length: int, window: int | None, room: int) -> Config:
    """Return the settings of a model with room for more tokens after its context.

    A window that spans the whole context goes on to span it all.
    """
    # llama.cpp stops at the length in the file; groundup goes on by dropping the older half.
    changed = {"context_length": context_length + room}
    if window is not None and window >= context_length:
        changed["sliding_window"] = max(window, context_length + room)
    return config.model_copy(update=changed)


def letter_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return what the letters of shapes mean: V vocabulary, C width, Q and K all heads' channels, D
    a head's, F the MLP's inner width."""
    return {
        "C": config["width"],
        "D": config["head_dim"],
        "F": config["mlp_width"],
        "V": config["vocabulary_size"],
        "Q": config["heads"] * config["head_dim"],
        "K": config["kv_heads"] * config["head_dim"],
    }


def plain(value: Any) -> Any:
    """Return 1e-05 for what float32 makes of it, 9.999999747378752e-06; an integer as it is."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value


def stretched(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how rotary wavelengths are stretched in texts of the context's length, or None."""
    scaling: Mapping[str, Any] | None = config.get("rope_scaling")
    if scaling and scaling["kind"] == "dynamic":
        return scaling if config["context_length"] > scaling["original_context"] else None
    return scaling
