"""Several continuations of one beginning in a row, each blind to the others: the beginning is
computed once for all of them, with a gradient.

Shape legend: B rows, T tokens, G key and value heads, D head dimension.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["BEGINNING", "Branches"]

BEGINNING = 0
"""The branch of tokens that every branch of its row goes on from."""


class Branches:
    """Given to a model in place of a ``KeyValueCache``: its queries meet keys of the same pass.

    Nothing outlives the pass, and nothing is written in place, so gradients flow as through any
    attention. A token sees the beginning of its row and what its own branch has before it, by
    position; the models know nothing of branches, because it is the cache that masks.

    Args:
        branches: (B, T) which branch each token is of: ``BEGINNING``, above it, or below it for
            padding, which no other token sees.
    """

    used = 0

    def __init__(self, branches: Tensor, layers: int) -> None:
        own = branches[:, :, None] == branches[:, None]
        self._seen = own | (branches == BEGINNING)[:, None]
        self.layers = [_Layer()] * layers

    def reserve(self, positions: Tensor) -> None:
        """Take note of nothing: there are no slots."""

    def mask(self, positions: Tensor, window: int | None) -> Tensor:
        """Return (B, 1, T, T) booleans: which tokens each token sees."""
        distance = positions[:, :, None] - positions[:, None]
        seen = self._seen & (distance >= 0)
        if window:
            seen &= distance < window
        return seen[:, None]


class _Layer:
    def store(
        self, positions: Tensor, keys: Tensor, values: Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, T, G, D) as attention reads them, (B, G, T, D)."""
        return keys.transpose(1, 2), values.transpose(1, 2)
