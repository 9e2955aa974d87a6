"""A cache for decoding with models that keep keys and values in a way of their own, or keep none.

Shape legend: B rows, T new tokens, S tokens read so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.nn.kv_cache import LayerCache

__all__ = ["RecomputeCache", "WithoutCache"]

Read = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]


class RecomputeCache:
    """What each row has read, and what the model made of it.

    As long as every row is given one more token, the model reads these alone. When rows come to
    differ (a row begins again, because its context was full), all is read again, padded on the
    left. A model that keeps nothing reads everything each time.

    Args:
        batch: B.
        device: Of the model.
        keeps: Whether the model takes and returns keys and values.
    """

    def __init__(self, batch: int, device: torch.device, *, keeps: bool) -> None:
        self._texts: list[list[int]] = [[] for _ in range(batch)]
        self._past: Any = None
        self._mask = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        self._keeps = keeps

    @property
    def layers(self) -> list[LayerCache]:
        """One layer that tells the device."""
        return [LayerCache(self._mask, self._mask)]

    def outgrown(self, read: int, length: int) -> bool:
        """Return that no text has to be read again: the model does what it must by itself."""
        return False

    def read(self, model: Read, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the logits (B, 1, V) after new tokens.

        Args:
            model: Given tokens (B, T), which of (B, S) are no padding, and what it returned before,
                it returns the last position's logits and what it is to be given next.
            tokens: (B, T).
            positions: (B, T), of a row's tokens from the position after its last, or from 0; -1 for
                padding.
        """
        # Level: every row goes on by exactly one token, which is what a past can be used for.
        level = positions.shape[1] == 1 and self._past is not None
        for text, row, places in zip(self._texts, tokens.tolist(), positions.tolist(), strict=True):
            new = [(place, token) for place, token in zip(places, row, strict=True) if place >= 0]
            level = level and len(new) == 1 and new[0][0] == len(text)
            # A row that begins again writes over what it had.
            text[new[0][0] if new else len(text) :] = [token for _, token in new]
        if level:
            self._mask = torch.cat([self._mask, torch.ones_like(tokens, dtype=torch.bool)], 1)
        else:
            tokens, self._mask = _pad_left(self._texts, tokens.device)
        if not self._keeps:
            # One row at a time: such a model may not know what padding is.
            rows = zip(tokens, self._mask, strict=True)
            found = [model(row[real][None], real[real][None], None)[0] for row, real in rows]
            return torch.cat(found)
        logits, self._past = model(tokens, self._mask, self._past if level else None)
        return logits

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; one may be there more than once."""
        # Copies: a row that is there twice goes on in two ways.
        self._texts = [list(self._texts[row]) for row in rows]
        self._mask = self._mask[rows]
        # transformers' caches can be asked for some of their rows.
        if self._past is not None:
            self._past.batch_select_indices(torch.tensor(rows, device=self._mask.device))

    def keep_beams(self, rows: list[int], inputs: list[int]) -> None:
        """Go on with these rows; nothing is kept of inputs."""
        self.keep(rows)


class WithoutCache:
    """A model whose forward takes tokens alone, as one that decodes: it reads each text again for
    every new token."""

    def __init__(self, model: Any) -> None:
        self._model: nn.Module = model
        self.config: Any = model.config

    @property
    def training(self) -> bool:
        """The model's mode."""
        return self._model.training

    def train(self, mode: bool = True) -> Any:
        """Set the model's mode."""
        return self._model.train(mode)

    def new_cache(self, batch: int, length: int) -> RecomputeCache:
        """Return an empty cache for ``batch`` rows."""
        return RecomputeCache(batch, next(self._model.parameters()).device, keeps=False)

    def __call__(
        self, tokens: Tensor, positions: Tensor, *, cache: RecomputeCache, last_only: bool
    ) -> Tensor:
        """Return the last position's logits (B, 1, V)."""

        def read(texts: Tensor, mask: Tensor, past: Any) -> tuple[Tensor, None]:
            return self._model(texts)[:, -1:], None

        return cache.read(read, tokens, positions)


def _pad_left(texts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return texts as rows of tokens padded on the left, and what is no padding."""
    longest = max(map(len, texts))
    rows = torch.tensor([[0] * (longest - len(text)) + text for text in texts], device=device)
    real = torch.tensor(
        [[False] * (longest - len(text)) + [True] * len(text) for text in texts], device=device
    )
    return rows, real
