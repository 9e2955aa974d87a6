"""What a plan on paper asks of a model's settings."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["HasDecoderSizes"]


@runtime_checkable
class HasDecoderSizes(Protocol):
    """Settings of a decoder-only transformer."""

    context_length: int

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in: layers,
        width, heads, kv_heads, head_dim, mlp_width, vocabulary_size."""
