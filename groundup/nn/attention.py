"""Self-attention, causal or both ways: multi-head to grouped-query, with QK-norm and a sliding window.

Shape legend: B rows, T positions, C width, H heads, G key and value heads, D head dimension, N boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.cache import LayerCache
from groundup.nn.norm import RMSNorm
from groundup.nn.packed_attention import packed_attention
from groundup.nn.rope import rotate

__all__ = ["Attention", "AttentionShape", "Where"]


@dataclass(frozen=True)
class AttentionShape:
    """The sizes of one attention layer, and which of its parts exist."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    qk_norm_eps: float | None = None
    window: int | None = None
    input_bias: bool = False
    output_bias: bool = False
    causal: bool = True


@dataclass(frozen=True)
class Where:
    """Where the tokens of a forward pass stand; the same for every layer.

    Attributes:
        rotary: Cosines and sines (B or 1, T, 1, D), or None without rotary positions.
        boundaries: (N,) starts of packed documents over the B*T tokens, or None: each row is one document.
        positions: (B, T), with a cache only.
        mask: (B, 1, T or 1, S) of what each query sees: with a cache, or of padded rows where attention is not causal.
        used: S, with a cache only.
    """

    rotary: tuple[Tensor, Tensor] | None = None
    boundaries: Tensor | None = None
    positions: Tensor | None = None
    mask: Tensor | None = None
    used: int = 0


class Attention(nn.Module):
    """Self-attention, causal unless the shape says otherwise.

    Separate projections keep every parameter one-to-one with published weights, and each matrix one to the optimizer.
    Fusing query, key and value would save a few percent of these three products' time.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.2; grouped queries: Ainslie et al., 2023 (arXiv:2305.13245);
        QK-norm: Dehghani et al., 2023 (arXiv:2302.05442), with RMSNorm over each head as in Qwen3; sliding window:
        Jiang et al., Mistral 7B, 2023 (arXiv:2310.06825).
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.query = nn.Linear(shape.width, queries, bias=shape.input_bias)
        self.key = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.value = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.output = nn.Linear(queries, shape.width, bias=shape.output_bias)
        eps = shape.qk_norm_eps
        self.query_norm = None if eps is None else RMSNorm(shape.head_dim, eps)
        self.key_norm = None if eps is None else RMSNorm(shape.head_dim, eps)

    def forward(self, x: Tensor, where: Where, cache: LayerCache | None = None) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        dim = self.shape.head_dim
        query, key, value = (project(x).unflatten(-1, (-1, dim)) for project in (self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = _normed(self.query_norm, query), _normed(self.key_norm, key)
        if where.rotary is not None:
            query, key = rotate(query, *where.rotary), rotate(key, *where.rotary)  # (B, T, H or G, D)
        query, key = query.to(value.dtype), key.to(value.dtype)
        if cache is not None:
            out = self._cached(query, key, value, where, cache)
        elif where.boundaries is not None:
            query, key, value = (y.flatten(0, 1) for y in (query, key, value))
            out = packed_attention(query, key, value, where.boundaries, self.shape.window)
        elif self.shape.causal:
            out = self._causal(query, key, value)
        else:
            out = self._attend(query, key.transpose(1, 2), value.transpose(1, 2), where.mask)
        return self.output(out.reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        window, length = self.shape.window, query.shape[1]
        mask = None
        if window is not None and window < length:
            distance = torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)
            mask = (distance >= 0) & (distance < window)
        return self._attend(query, key.transpose(1, 2), value.transpose(1, 2), mask)

    def _cached(self, query: Tensor, key: Tensor, value: Tensor, where: Where, cache: LayerCache) -> Tensor:
        assert where.positions is not None
        keys, values = cache.store(where.positions, key, value, where.used)
        return self._attend(query, keys.to(query.dtype), values.to(query.dtype), where.mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from query (B, T, H, D) to key and value (B, G, S, D); without a mask to all, or to all before."""
        grouped = self.shape.heads != self.shape.kv_heads
        causal = self.shape.causal and mask is None
        query = query.transpose(1, 2)
        out = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, enable_gqa=grouped)
        return out.transpose(1, 2)


def _normed(norm: RMSNorm, x: Tensor) -> Tensor:
    """Normalise in the dtype of the weight, which autocast keeps finer than x."""
    return norm(x.to(norm.weight.dtype))  # type: ignore[no-any-return]
