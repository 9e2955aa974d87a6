"""Decoding on a GPU with steps that are recorded once and replayed: a step of one token a row is
hundreds of small operations, and to launch them one by one takes longer than to compute them.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import Generates
from groundup.generation.recompute_cache import WithoutCache
from groundup.nn.kv_cache import KeyValueCache

__all__ = ["RecordedSteps", "reader_of", "record"]

# Slots of the cache that a step reads are rounded up to it, so that one recording serves many.
_SLOTS = 256
# Steps of the same rows before a recording, which takes as long as about three: rows that end
# make it useless.
_BEFORE = 4
_log = logging.getLogger(__name__)

Step = Callable[[], Tensor]
Record = Callable[[Step], Step]


def reader_of(model: Any) -> Any:
    """Return what decodes as ``model`` does: with a cache, and on a GPU with recorded steps."""
    if not isinstance(model, Generates):
        return WithoutCache(model)
    if not isinstance(model, nn.Module):
        return model
    first = next(model.parameters(), None)
    return RecordedSteps(model, record) if first is not None and first.is_cuda else model


def record(step: Step) -> Step:
    """Record a step on a GPU; return what replays it, and gives the same tensor each time.

    Raises:
        RuntimeError: If the step waits for the GPU, such as to choose by what was computed.
    """
    # PyTorch asks for a run on another stream before: libraries set themselves up in it.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


class RecordedSteps:
    """A language model whose steps of one token a row are recorded, and replayed as long as the
    same rows go on in the same cache.

    Args:
        model: What decodes, on the device.
        recorder: Returns what replays a step; ``record`` on a GPU.
    """

    def __init__(self, model: Any, recorder: Record) -> None:
        self.model = model
        self.config = model.config
        self._recorder = recorder
        self._replay: Step | None = None
        self._known: list[Tensor] = []
        self._slots = 0
        self._seen = 0
        self._works = True
        self._tokens = torch.empty(0)
        self._positions = torch.empty(0)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return bool(self.model.training)

    def train(self, mode: bool = True) -> RecordedSteps:
        """Set the model's mode."""
        self.model.train(mode)
        return self

    def new_cache(self, batch: int, length: int) -> KeyValueCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        cache: KeyValueCache = self.model.new_cache(batch, length)
        # A library's own cache is no such one, and its steps are not recorded.
        if isinstance(cache, KeyValueCache):
            cache.stay()
        return cache

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        cache: KeyValueCache,
        last_only: bool = True,
    ) -> Tensor:
        """Return logits (B, 1, V) as the model does; they are overwritten by the next step."""
        level = self._works and tokens.shape[1] == 1 and isinstance(cache, KeyValueCache)
        if not level:
            self._forget()
            return self._run(tokens, positions, cache, last_only)
        cache.reserve(positions)
        if not self._is_known(cache):
            self._forget()
            self._known = _tensors(cache)
        self._seen += 1
        slots = min(cache.length, -(-cache.used // _SLOTS) * _SLOTS)
        if self._replay is None or slots != self._slots:
            if self._seen <= _BEFORE:
                return self._run(tokens, positions, cache, last_only)
            self._record(tokens, positions, cache, slots)
        if self._replay is None:
            return self._run(tokens, positions, cache, last_only)
        self._tokens.copy_(tokens)
        self._positions.copy_(positions)
        return self._replay()

    def _run(
        self, tokens: Tensor, positions: Tensor, cache: KeyValueCache, last_only: bool
    ) -> Tensor:
        logits: Tensor = self.model(tokens, positions, cache=cache, last_only=last_only)
        return logits

    def _record(self, tokens: Tensor, positions: Tensor, cache: KeyValueCache, slots: int) -> None:
        """Record the step of these rows; where that cannot be done, no further one is tried."""
        self._tokens = tokens.clone()
        self._positions = positions.clone()
        try:
            # A step that is run twice writes the same keys to the same slots.
            with cache.reading(slots):
                self._replay = self._recorder(
                    lambda: self._run(self._tokens, self._positions, cache, True)
                )
            self._slots = slots
        except RuntimeError as error:
            self._works = False
            self._replay = None
            reason = str(error).partition("\n")[0]
            _log.info("decoding: steps of this model cannot be recorded: %s", reason)

    def _is_known(self, cache: KeyValueCache) -> bool:
        # A recording reads and writes these very tensors, and none in their place.
        found = _tensors(cache)
        same = len(found) == len(self._known)
        return same and all(one is other for one, other in zip(found, self._known, strict=True))

    def _forget(self) -> None:
        self._replay = None
        self._known = []
        self._seen = 0


def _tensors(cache: KeyValueCache) -> list[Tensor]:
    """Return all that a step reads or writes of a cache."""
    kept = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return kept + list(cache.encoded.values())
