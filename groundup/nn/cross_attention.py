"""Attention of one sequence to another: of a text that is written to the states of what it is
about.

Shape legend: B inputs, S positions of an input, R rows, T positions, C width, H heads, G key and
    value heads, D head dimension.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from groundup.nn.attention import AttentionShape

__all__ = ["CrossAttention"]


class CrossAttention(nn.Module):
    """Queries from one sequence, keys and values from another, without positions.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.2.3.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.shape = shape
        queries = shape.heads * shape.head_dim
        keys = shape.kv_heads * shape.head_dim
        self.query = nn.Linear(shape.width, queries, bias=shape.input_bias)
        self.key = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.value = nn.Linear(shape.width, keys, bias=shape.input_bias)
        self.output = nn.Linear(queries, shape.width, bias=shape.output_bias)

    def read(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values of states (B, S, C), each (B, G, S, D)."""
        dim = self.shape.head_dim
        key, value = (
            project(states).unflatten(-1, (-1, dim)).transpose(1, 2)
            for project in (self.key, self.value)
        )
        return key, value

    def forward(self, x: Tensor, read: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Return (R, T, C) from x (R, T, C).

        Args:
            x: R is B, or a multiple of it: the rows of each input next to each other.
            read: What ``read`` returned of the B inputs.
            mask: (B, 1, 1, S) booleans, which positions are seen; None: all.
        """
        keys, values = read
        query = self.query(x).unflatten(-1, (-1, self.shape.head_dim))  # (R, T, H, D)
        # Several texts about one input attend to it together, as if they were one: its keys and
        # values, which take most of the time, are read once and never copied.
        together = query.unflatten(0, (len(keys), -1)).flatten(1, 2)  # (B, R / B * T, H, D)
        out = F.scaled_dot_product_attention(
            together.transpose(1, 2),
            keys.to(query.dtype),
            values.to(query.dtype),
            mask,
            scale=self.shape.scale,
            enable_gqa=self.shape.heads != self.shape.kv_heads,
        )
        return self.output(out.transpose(1, 2).reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]

    def weights(self, x: Tensor, keys: Tensor) -> Tensor:
        """Return (B, H, T, S), what ``forward`` weighs values by; without a mask.

        Args:
            x: (B, T, C).
            keys: (B, G, S, D), the first of what ``read`` returned.
        """
        dim = self.shape.head_dim
        query = self.query(x).unflatten(-1, (-1, dim)).transpose(1, 2)  # (B, H, T, D)
        # Query heads that share keys lie next to each other.
        keys = keys.repeat_interleave(self.shape.heads // self.shape.kv_heads, 1)
        scale = dim**-0.5 if self.shape.scale is None else self.shape.scale
        return (query @ keys.transpose(2, 3) * scale).softmax(-1)  # type: ignore[no-any-return]
