"""Stretched rotary wavelengths as Hugging Face names them, in both directions: settings of
``nn.rope.RopeScaling``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.core.errors import CheckpointError

__all__ = ["scaling_to_groundup", "scaling_to_huggingface"]

# By kind: the names in config.json, and groundup's.
_SCALINGS: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
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


def scaling_to_groundup(
    rope: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the settings of ``RopeScaling``, or None.

    ``dynamic`` changes nothing within ``max_position_embeddings``, and no longer text is read here.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    # Only Phi-3 has it, which reads its own.
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(
            "config.json", "only a part of each head is rotary", "Use another model"
        )
    if kind in ("default", "dynamic"):
        return None
    if kind not in _SCALINGS:
        known = ", ".join(["default", "dynamic", *_SCALINGS])
        raise CheckpointError(
            "config.json", f"rotary scaling {kind}; supported: {known}", "Use another model"
        )
    fields = _SCALINGS[kind]
    values = {ours: rope[theirs] for theirs, ours in fields.items() if rope.get(theirs) is not None}
    if "original_max_position_embeddings" in fields:
        original = config.get("original_max_position_embeddings", config["max_position_embeddings"])
        values.setdefault("original_context", original)
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
    values = {
        theirs: scaling[ours]
        for theirs, ours in _SCALINGS[kind].items()
        if scaling[ours] is not None
    }
    return {"rope_type": kind, **values}
