"""Stretched rotary wavelengths as Hugging Face names them, in both directions: settings of
``nn.rope.RopeScaling``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.core.errors import CheckpointError

__all__ = [
    "positions_to_huggingface",
    "scaling_to_groundup",
    "scaling_to_huggingface",
    "unknown_rope_keys",
]

# By kind: the names in config.json, and groundup's.
_SCALINGS: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
    # The original context is max_position_embeddings.
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "low_freq_factor": "low_frequency",
        "high_freq_factor": "high_frequency",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "beta_slow": "beta_slow",
        "beta_fast": "beta_fast",
        "truncate": "whole_channels",
        "attention_factor": "attention_factor",
    },
}

# What transformers reads of any kind; mrope's sections are of pictures alone, "finetuned" says how
# the weights came about.
_ROPE_KEYS = frozenset(key for fields in _SCALINGS.values() for key in fields)
_ROPE_KEYS |= {"type", "rope_type", "rope_theta", "partial_rotary_factor", "finetuned"}
_ROPE_KEYS |= {"original_max_position_embeddings", "short_factor", "long_factor"}
_ROPE_KEYS |= {"mscale", "mscale_all_dim", "mrope_section", "mrope_interleaved"}


def unknown_rope_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys within what config.json says of rotary positions that nothing reads, with the
    name of the whole in front."""
    found = []
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name) or {}
        if not isinstance(rope, Mapping):
            continue
        # Of each kind of layers, where these differ.
        kinds = [part for part in rope.values() if isinstance(part, Mapping)]
        for part in kinds or [rope]:
            # A factor of 1 changes nothing, whatever it multiplies.
            odd = [
                key
                for key, value in part.items()
                if value not in (None, False) and not (key.endswith("_factor") and value == 1)
            ]
            found += [f"{name}.{key}" for key in odd if key not in _ROPE_KEYS]
    return list(dict.fromkeys(found))


def scaling_to_groundup(
    rope: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the settings of ``RopeScaling``, or None."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    # Only Phi-3 has it, which reads its own.
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            "config.json", "only a part of each head is rotary", "Use another model"
        )
    if kind == "default":
        return None
    if kind not in _SCALINGS:
        known = ", ".join(["default", *_SCALINGS])
        raise CheckpointError(
            "config.json", f"rotary scaling {kind}; supported: {known}", "Use another model"
        )
    fields = _SCALINGS[kind]
    values = {own: rope[hf] for hf, own in fields.items() if rope.get(hf) is not None}
    if "original_max_position_embeddings" in fields:
        original = config.get("original_max_position_embeddings", config["max_position_embeddings"])
        values.setdefault("original_context", original)
    if kind == "dynamic":
        values["original_context"] = config["max_position_embeddings"]
    scales = [rope.get("mscale"), rope.get("mscale_all_dim")]
    if kind == "yarn" and "attention_factor" not in values and all(scales):
        # As DeepSeek's models say it: a quotient of two amplitudes.
        stretch = math.log(max(values["factor"], 1))
        whole, each = (0.1 * scale * stretch + 1 for scale in scales if scale)
        values["attention_factor"] = whole / each
    return {"kind": kind, **values}


def scaling_to_huggingface(scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the part of config.json that says how wavelengths were stretched, if they were."""
    if scaling is None:
        return {"rope_type": "default"}
    kind: str = scaling["kind"]
    values = {hf: scaling[own] for hf, own in _SCALINGS[kind].items() if scaling[own] is not None}
    return {"rope_type": kind, **values}


def positions_to_huggingface(config: Mapping[str, Any]) -> int:
    """Return what config.json calls ``max_position_embeddings``: the context, or before it was
    stretched, where texts are by their length."""
    scaling = config["rope_scaling"]
    if scaling and scaling["kind"] == "dynamic":
        return int(scaling["original_context"])
    return int(config["context_length"])
