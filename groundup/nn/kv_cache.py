"""Keys and values of tokens already read, so that decoding computes each token once.

Shape legend: B rows, T new tokens, G key and value heads, D head dimension, S slots in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KeyValueCache", "LayerCache"]

# Slots that a cache begins with: most texts end long before the longest one would.
_FIRST_SLOTS = 32


@dataclass
class LayerCache:
    """One layer's keys and values, each (B, G, slots + 1, D). Slot p holds position p; the last
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
    """A cache for a batch whose rows may be at different positions.

    A row's position p is always in slot p, so that rows of unequal length need no bookkeeping: a
    query at position p sees the slots up to p. Position -1 marks padding on the left. On a CPU
    slots are allocated ahead of their use, twice as many each time; elsewhere all at once, so that
    the tensors stay those of steps that were recorded.

    Args:
        layers: How many layers.
        shape: (B, G, length, D).

    Attributes:
        outgrown: Whether a row whose text has grown from one length to another, which is one token
            longer, has to be read again, because its keys were turned for the shorter text.
        encoded: What an encoder made of each row's input, by name, (B, ...); it stays when a row
            begins again.
        shares_inputs: Whether the model lets rows next to each other share what was read of one
            input, so that ``encoded`` has a row for each input and not for each text.
    """

    def __init__(
        self,
        layers: int,
        shape: tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        outgrown: Callable[[int, int], bool] = lambda read, length: False,
        *,
        shares_inputs: bool = False,
    ) -> None:
        self.outgrown = outgrown
        self.shares_inputs = shares_inputs
        rows, heads, length, dim = shape
        self.length = length
        self.used = 0
        self._reserves = True
        self.encoded: dict[str, Tensor] = {}
        # Memory that rows move through.
        self._spare: Tensor | None = None
        self._grows = device.type == "cpu"
        self._slots = min(length, _FIRST_SLOTS) if self._grows else length
        # One slot more, where padding is written: no branch is needed for it.
        size = (rows, heads, self._slots + 1, dim)
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
        if not self._reserves:
            return
        # The most of all rows: shorter rows are masked, so that the tensors stay rectangular.
        self.used = max(self.used, int(positions.max()) + 1)
        if self.used > self.length:
            raise ValueError(f"position {self.used - 1} is beyond the cache's {self.length} slots")
        if self.used > self._slots:
            self._grow(min(self.length, max(2 * self._slots, self.used)))

    def stay(self) -> None:
        """Allocate all slots, and let rows change places within these tensors from now on: recorded
        steps read and write these very ones."""
        self._grows = False
        if self._slots < self.length:
            self._grow(self.length)

    @torch.inference_mode(False)
    def _grow(self, slots: int) -> None:
        """Allocate more slots.

        Not as tensors of inference mode, whoever asks: outside of it nothing may write into those.
        """
        before = self._slots
        self._spare = None
        self._slots = slots
        for layer in self.layers:
            layer.keys = _with_slots(layer.keys, before, self._slots)
            layer.values = _with_slots(layer.values, before, self._slots)

    @contextmanager
    def reading(self, slots: int) -> Iterator[None]:
        """Let forward passes read this many slots, whatever their positions, which are reserved.

        They do not wait for a GPU to tell the positions.
        """
        used = self.used
        self.used = slots
        self._reserves = False
        try:
            yield
        finally:
            self.used = used
            self._reserves = True

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
        self._keep_encoded(rows)
        self._keep_written(rows)

    def keep_beams(self, rows: list[int], inputs: list[int]) -> None:
        """Go on with these rows, as many next to each other about each of these inputs.

        Args:
            rows: Numbers of rows, each with those of its input.
            inputs: Numbers of the inputs, rising.
        """
        kept = inputs if self.shares_inputs else rows
        first = next(iter(self.encoded.values()), None)
        # What was read of the inputs is much, and most steps end none of them.
        if first is not None and kept != list(range(len(first))):
            self._keep_encoded(kept)
        if rows != list(range(self.rows)):
            self._keep_written(rows)

    def _keep_encoded(self, rows: list[int]) -> None:
        for name, value in self.encoded.items():
            self.encoded[name] = value.index_select(0, torch.tensor(rows, device=value.device))

    def _keep_written(self, rows: list[int]) -> None:
        # Indexing with a list would take several times as long.
        index = torch.tensor(rows, device=self.layers[0].keys.device)
        if len(rows) == self.rows:
            self._move(index)
            return
        # A copy: rows that were dropped give their memory back.
        self._spare = None
        for layer in self.layers:
            layer.keys = layer.keys.index_select(0, index)
            layer.values = layer.values.index_select(0, index)

    def _move(self, index: Tensor) -> None:
        """Let rows change places. Of a long cache most is empty, and need not move."""
        for layer in self.layers:
            if self._grows:
                layer.keys = self._moved(layer.keys, index)
                layer.values = self._moved(layer.values, index)
                continue
            # Within the tensors that there are, which recorded steps read.
            for kept in (layer.keys, layer.values):
                used = kept[:, :, : self.used]
                used.copy_(used.index_select(0, index))

    def _moved(self, kept: Tensor, index: Tensor) -> Tensor:
        """Return other memory with the rows of ``kept`` in their new places; ``kept`` is spare now.

        Fresh memory at each step would cost more than the copy.
        """
        if self._spare is None:
            # What is not written is read as well, with weight 0, and must be a number for that.
            with torch.inference_mode(False):
                self._spare = torch.zeros_like(kept)
        found = self._spare
        used = slice(0, self.used)
        torch.index_select(kept[:, :, used], 0, index, out=found[:, :, used])
        self._spare = kept
        return found


def _with_slots(kept: Tensor, before: int, slots: int) -> Tensor:
    """Return keys or values (B, G, before + 1, D) with more slots."""
    rows, heads, _, dim = kept.shape
    # Zeros, not whatever is in memory: a NaN that is masked is a NaN all the same.
    larger = kept.new_zeros((rows, heads, slots + 1, dim))
    larger[:, :, :before] = kept[:, :, :before]
    return larger
