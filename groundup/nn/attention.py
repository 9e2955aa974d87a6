"""Self-attention, causal or both ways: multi-head to grouped-query, with QK-norm and a sliding
window.

Shape legend: B rows, T positions, C width, H heads, G key and value heads, D head dimension, N
    boundaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.layers import OtherTokens
from groundup.nn.kv_cache import KeyValueCache, LayerCache
from groundup.nn.norm import RMSNorm
from groundup.nn.packed_attention import on_a_gpu, packed_attention
from groundup.nn.rope import RopeScaling, rotary_angles, rotate

__all__ = [
    "Attention",
    "AttentionContext",
    "AttentionShape",
    "Passage",
    "seen_on_average",
    "token_positions",
]


@dataclass(frozen=True)
class AttentionShape:
    """The sizes of one attention layer, and which of its parts exist.

    ``scale`` is what products of queries and keys are multiplied with; None:
    ``1 / sqrt(head_dim)``.
    """

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    # None: queries and keys are not normalised.
    qk_norm_eps: float | None = None
    qk_norm: Callable[[int, float], nn.Module] = RMSNorm
    scale: float | None = None
    window: int | None = None
    input_bias: bool = False
    output_bias: bool = False
    causal: bool = True


@dataclass(frozen=True)
class AttentionContext:
    """Where the tokens of a forward pass are and what they see; the same for layers of one kind.

    Attributes:
        rotary: Cosines and sines (B or 1, T, 1, D), or None without rotary positions.
        boundaries: (N,) starts of packed documents over the B*T tokens, or None: each row is one
            document.
        positions: (B, T), with a cache only.
        mask: (B, 1, T or 1, S) of what each query sees: with a cache, or of padded rows where
            attention is not causal. Or (B or 1, H, T, S) numbers that are added to the products of
            queries and keys, -inf where nothing is seen.
        used: S, with a cache only.
        longest: How many tokens a packed document has at most, where that is known.
    """

    rotary: tuple[Tensor, Tensor] | None = None
    boundaries: Tensor | None = None
    positions: Tensor | None = None
    mask: Tensor | None = None
    used: int = 0
    longest: int | None = None


class Attention(nn.Module):
    """Self-attention, causal unless the shape says otherwise.

    Separate projections keep every parameter one-to-one with published weights, and each matrix one
    to the optimizer. Fusing query, key and value would save a few percent of these three products'
    time.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.2; grouped queries: Ainslie et al., 2023
        (arXiv:2305.13245); QK-norm: Dehghani et al., 2023 (arXiv:2302.05442), with RMSNorm over
        each head as in Qwen3; sliding window: Jiang et al., Mistral 7B, 2023 (arXiv:2310.06825).

    Attributes:
        others: The tokens that other processes have; None: each text is here as a whole.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        self.others: OtherTokens | None = None
        queries = shape.heads * shape.head_dim
        keys = shape.kv_heads * shape.head_dim
        self.query = nn.Linear(shape.width, queries, bias=shape.input_bias)
        self.key = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.value = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.output = nn.Linear(queries, shape.width, bias=shape.output_bias)
        eps = shape.qk_norm_eps
        self.query_norm: nn.Module | None = None
        self.key_norm: nn.Module | None = None
        if eps is not None:
            self.query_norm = shape.qk_norm(shape.head_dim, eps)
            self.key_norm = shape.qk_norm(shape.head_dim, eps)

    def forward(
        self, x: Tensor, context: AttentionContext, cache: LayerCache | None = None
    ) -> Tensor:
        """Return (B, T, C) from x (B, T, C)."""
        dim = self.shape.head_dim
        query, key, value = (
            project(x).unflatten(-1, (-1, dim)) for project in (self.query, self.key, self.value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query = _normalise(self.query_norm, query)
            key = _normalise(self.key_norm, key)
        if context.rotary is not None:
            query, key = (rotate(x, *context.rotary) for x in (query, key))  # (B, T, H or G, D)
        if self.shape.scale is not None:
            # What follows divides by the root again.
            query = query * (self.shape.scale * math.sqrt(dim))
        # Norms and rotation compute in float32 under autocast; the products shall not.
        query, key = (x.to(value.dtype) for x in (query, key))
        # Five ways to the same sums: with a cache the keys are older than the queries; of a divided
        # text some are elsewhere; packed documents must not see each other; without any of these,
        # causality or padding alone decides.
        if cache is not None:
            out = self._cached(query, key, value, context, cache)
        elif self.others is not None and self.others.divided:
            key, value, mask = self.others.gather(
                key, value, causal=self.shape.causal, window=self.shape.window
            )
            out = self._attend(query, key.transpose(1, 2), value.transpose(1, 2), mask)
        elif context.boundaries is not None:
            query, key, value = (y.flatten(0, 1) for y in (query, key, value))
            packed = (context.boundaries, self.shape.window, context.longest)
            out = packed_attention(query, key, value, *packed)
        elif self.shape.causal and context.mask is None:
            out = self._causal(query, key, value)
        else:
            out = self._attend(query, key.transpose(1, 2), value.transpose(1, 2), context.mask)
        # Heads side by side again, whatever their dimension: it need not be width / heads.
        return self.output(out.reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        length = query.shape[1]
        window = self.shape.window or length
        mask = None
        # Without a mask the kernel may skip what causality hides; a window needs one.
        if window < length:
            places = torch.arange(length, device=query.device)
            distance = places[:, None] - places
            mask = (distance >= 0) & (distance < window)
        return self._attend(query, key.transpose(1, 2), value.transpose(1, 2), mask)

    def _cached(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        context: AttentionContext,
        cache: LayerCache,
    ) -> Tensor:
        # Contexts made with a cache have positions: ``Passage.context``.
        assert context.positions is not None
        keys, values = cache.store(context.positions, key, value, context.used)
        return self._attend(query, keys.to(query.dtype), values.to(query.dtype), context.mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from query (B, T, H, D) to key and value (B, G, S, D); without a mask to all, or
        to all before."""
        grouped = self.shape.heads != self.shape.kv_heads
        causal = self.shape.causal and mask is None
        query = query.transpose(1, 2)
        out = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=causal, enable_gqa=grouped
        )
        return out.transpose(1, 2)


def _normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise in the dtype of the weight, which autocast keeps finer than x."""
    return norm(x.to(norm.weight.dtype))  # type: ignore[no-any-return, arg-type]


def token_positions(
    tokens: Tensor, positions: Tensor | None, boundaries: Tensor | None, cache: KeyValueCache | None
) -> Tensor:
    """Return the positions of tokens (B, T), (B or 1, T): those given, or what follows the cache,
    else 0 .. T-1.

    The cache takes note of them.

    Raises:
        ValueError: If packed documents are to be decoded, or a position is beyond the cache.
    """
    if positions is None:
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if cache is not None:
            positions = positions + cache.used
    if cache is None:
        return positions
    if boundaries is not None:
        raise ValueError("packed documents cannot be decoded: give boundaries or a cache, not both")
    positions = positions.expand_as(tokens)
    # Rows may be given one set of positions for all.
    cache.reserve(positions)
    return positions


@dataclass(frozen=True)
class Passage:
    """The tokens of one forward pass.

    Attributes:
        tokens: (B, T).
        positions: (B or 1, T), as ``token_positions`` returns them.
        boundaries: (N,) starts of packed documents over the B*T tokens, or None: each row is one.
        cache: What was read before, with the new positions reserved.
        wide: Whether the model computes in float64.
    """

    tokens: Tensor
    positions: Tensor
    boundaries: Tensor | None
    cache: KeyValueCache | None
    wide: bool

    def lengths(self) -> Tensor:
        """Return how long the text of each token is, as far as it is known here: (B, T) or (B, 1).

        Of a row in a cache that is the text up to its last new token.
        """
        positions = self.positions.expand_as(self.tokens)
        if self.boundaries is None:
            return positions[:, -1:] + 1
        flat = positions.flatten()
        # The document of each token, and from that where it ends.
        places = torch.arange(len(flat), device=flat.device, dtype=torch.int32)
        number = torch.searchsorted(self.boundaries, places, right=True)
        return (flat[self.boundaries[number] - 1] + 1).view_as(positions)

    def rotary(
        self, channels: int, theta: float, scaling: RopeScaling | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``rotary_angles`` of the tokens."""
        lengths = self.lengths() if scaling is not None and scaling.kind == "dynamic" else None
        return rotary_angles(self.positions, channels, theta, scaling, lengths, wide=self.wide)

    def context(self, rotary: tuple[Tensor, Tensor] | None, window: int | None) -> AttentionContext:
        """Return what layers with this window and these rotary angles attend by."""
        if self.cache is None:
            boundaries, longest = self.boundaries, None
            if boundaries is not None:
                boundaries, longest = on_a_gpu(boundaries, self.tokens.numel())
            return AttentionContext(rotary, boundaries, longest=longest)
        # Boundaries are left out: decoding refuses packed documents.
        mask = self.cache.mask(self.positions, window)
        return AttentionContext(rotary, None, self.positions, mask, self.cache.used)


def seen_on_average(context: int, window: int | None) -> float:
    """Return how many tokens a token of a document of ``context`` tokens sees on average, itself
    half counted."""
    if not context:
        return 0.0
    window = min(window or context, context)
    return window - window**2 / (2 * context)
