"""Keys and values of tokens already read, so that decoding computes each token once.

Shape legend: B rows, T new tokens, G key and value heads, D head dimension, S slots in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KeyValueCache", "LayerCache"]


@dataclass
class LayerCache:
    """One layer's keys and values, each (B, G, length + 1, D). Slot p holds position p; the last
    slot takes padding."""

    keys: Tensor
    values: Tensor

    def store(
        self, positions: Tensor, keys: Tensor, values: Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        """Keep new keys and values (B, T, G, D) at ``positions`` (B, T); return all in use, (B, G,
        S, D)."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        # Padding has position -1, which is the last slot: nobody reads it.
        self.keys[rows, :, positions] = keys.to(self.keys.dtype)
        self.values[rows, :, positions] = values.to(self.values.dtype)
        return self.keys[:, :, :used], self.values[:, :, :used]


class KeyValueCache:
    """A preallocated cache for a batch whose rows may be at different positions.

    A row's position p is always in slot p, so that rows of unequal length need no bookkeeping: a
    query at position p sees the slots up to p. Position -1 marks padding on the left.

    Args:
        layers: How many layers.
        shape: (B, G, length, D).

    Attributes:
        encoded: What an encoder made of each row's input, by name, (B, ...); it stays when a row
            begins again.
    """

    def __init__(
        self,
        layers: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        rows, heads, length, dim = shape
        self.length = length
        self.used = 0
        self.encoded: dict[str, Tensor] = {}
        # One slot more, where padding is written: no branch is needed for it.
        size = (rows, heads, length + 1, dim)
        self.layers = [
            LayerCache(*(torch.zeros(size, dtype=dtype, device=device) for _ in range(2)))
            for _ in range(layers)
        ]

    @property
    def rows(self) -> int:
        """How many rows the cache holds."""
        return max((len(layer.keys) for layer in self.layers), default=0)

    def reserve(self, positions: Tensor) -> None:
        """Take note of the positions (B, T) of the next forward pass.

        Raises:
            ValueError: If a position is beyond the cache.
        """
        # The most of all rows: shorter rows are masked, so that the tensors stay rectangular.
        self.used = max(self.used, int(positions.max()) + 1)
        if self.used > self.length:
            raise ValueError(f"position {self.used - 1} is beyond the cache's {self.length} slots")

    def mask(self, positions: Tensor, window: int | None) -> Tensor:
        """Return (B, 1, T, S) booleans: which slots each query sees. Padding sees slot 0, to stay a
        number."""
        slots = torch.arange(self.used, device=positions.device)
        distance = positions.clamp(min=0)[:, None, :, None] - slots
        seen = distance >= 0
        if window:
            seen &= distance < window
        return seen

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; one may be there more than once."""
        # Indexing copies: rows that were dropped give their memory back.
        self.encoded = {name: value[rows] for name, value in self.encoded.items()}
        for layer in self.layers:
            layer.keys = layer.keys[rows]
            layer.values = layer.values[rows]
