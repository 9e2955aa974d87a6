"""An encoder-decoder as two graphs, as other programs run it: what reads an input, and what writes
some tokens more after those that were written.

Shape legend: B rows, S positions of an input, P tokens written before, T new ones, H heads, D head
    dimension, L blocks of the decoder, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["DecoderGraph", "EncoderGraph"]


class EncoderGraph(nn.Module):
    """Reads inputs once: what every block of the decoder attends to.

    Args:
        model: A ``TwoStackTransformer``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return what the model's ``encode`` keeps, by name, each (B, ...)."""
        cache = _GraphCache((), {}, 0)
        self.model.encode(cache, **inputs)
        return cache.encoded


class DecoderGraph(nn.Module):
    """Writes on: the logits after new tokens, and keys and values of all that is written now.

    Args:
        model: A ``TwoStackTransformer``.
        read: The names of what ``EncoderGraph`` returns.
    """

    def __init__(self, model: nn.Module, read: Sequence[str]) -> None:
        super().__init__()
        self.model: Any = model
        self.read = tuple(read)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the logits (B, T, V), and 2 L keys and values (B, H, P + T, D), a block's next to
        each other, to be given next.

        Args:
            *values: The tokens (B, T) int64, first the start token; what ``EncoderGraph`` returned;
                then 2 L (B, H, P, D), where P is 0 at first.
        """
        tokens = values[0]
        read = dict(zip(self.read, values[1:], strict=False))
        past = values[1 + len(read) :]
        layers = [_Written(*pair) for pair in zip(past[::2], past[1::2], strict=True)]
        before = past[0].shape[2]
        used = before + tokens.shape[1]
        positions = torch.arange(before, used, device=tokens.device)[None]
        cache = _GraphCache(layers, read, used)
        logits: Tensor = self.model(tokens, positions, cache=cache)
        return (logits, *(t for layer in layers for t in (layer.keys, layer.values)))


@dataclass
class _Written:
    """A ``LayerCache`` of keys and values (B, H, P, D), which grow by those of new tokens."""

    keys: Tensor
    values: Tensor

    def store(
        self, positions: Tensor, keys: Tensor, values: Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, T, H, D); return all, (B, H, P + T, D)."""
        self.keys = torch.cat((self.keys, keys.transpose(1, 2)), 2)
        self.values = torch.cat((self.values, values.transpose(1, 2)), 2)
        return self.keys, self.values


@dataclass
class _GraphCache:
    """A ``KeyValueCache`` whose tensors are the inputs and the outputs of a graph, which has no
    memory."""

    layers: Sequence[_Written]
    encoded: dict[str, Tensor]
    used: int

    def reserve(self, positions: Tensor) -> None:
        """Do nothing: how many slots there are is known."""

    def mask(self, positions: Tensor, window: int | None) -> Tensor:
        """Return (1, 1, T, S) booleans: which slots each query sees."""
        slots = torch.arange(self.used, device=positions.device)
        return slots <= positions[:1, None, :, None]
