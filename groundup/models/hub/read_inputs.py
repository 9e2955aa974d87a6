"""What an encoder-decoder of another library has read of its inputs, and written about each.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T new tokens, C width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from groundup.nn.kv_cache import LayerCache

__all__ = ["ReadInputs"]


class _Write(Protocol):
    def __call__(
        self, tokens: Tensor, states: Tensor, mask: Tensor, past: Any, *, keeps: bool
    ) -> tuple[Tensor, Any]:
        """Return logits (R, T, V) of tokens about inputs, and what the next call is given."""


class ReadInputs:
    """The states of inputs, the texts about them, and what the library keeps of both.

    As long as all rows are given as many more tokens, the model reads these alone. Where rows have
    come to differ in length, each is read again by itself: families count padding before a text in
    ways of their own.

    Args:
        batch: R.
        device: Of the model.
        keeps: Whether the model takes and returns keys and values.
    """

    def __init__(self, batch: int, device: torch.device, *, keeps: bool) -> None:
        self._texts: list[list[int]] = [[] for _ in range(batch)]
        self._past: Any = None
        self._keeps = keeps
        self._states = torch.empty(0, device=device)
        self._mask = torch.empty(0, device=device)

    @property
    def layers(self) -> list[LayerCache]:
        """One layer that tells the device."""
        return [LayerCache(self._mask, self._mask)]

    def outgrown(self, read: int, length: int) -> bool:
        """Return that no text has to be read again."""
        return False

    def keep_inputs(self, states: Tensor, mask: Tensor) -> None:
        """Keep the states (B, S, C) of inputs, and what of them is no padding (B, S)."""
        # Several rows next to each other may be about one input.
        many = len(self._texts) // len(states)
        self._states = states.repeat_interleave(many, 0)
        self._mask = mask.repeat_interleave(many, 0)

    def read(self, write: _Write, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """Return the logits (R, T, V) of new tokens; where rows differ in length, (R, 1, V) of the
        last ones.

        Args:
            write: The model.
            tokens: (R, T).
            positions: (R, T), of a row's tokens from the position after its last, or from 0; -1 for
                padding. None: from the position after its last.
        """
        known = [len(text) for text in self._texts]
        level = True
        for row, (text, new) in enumerate(zip(self._texts, tokens.tolist(), strict=True)):
            places = list(range(len(text), len(text) + len(new)))
            if positions is not None:
                places = positions[row].tolist()
            real = [(place, token) for place, token in zip(places, new, strict=True) if place >= 0]
            level = level and len(real) == len(new) and real[0][0] == len(text)
            # A row that begins again writes over what it had.
            text[real[0][0] if real else len(text) :] = [token for _, token in real]
        equal = len({len(text) for text in self._texts}) == 1
        if level and equal and (self._past is not None or not any(known)):
            logits, self._past = self._call(write, tokens, self._past)
            return logits
        self._past = None
        if equal:
            whole = torch.tensor(self._texts, device=tokens.device)
            logits, self._past = self._call(write, whole, None)
            return logits[:, -tokens.shape[1] :]
        found = [
            write(
                torch.tensor([text], device=tokens.device),
                self._states[row : row + 1],
                self._mask[row : row + 1],
                None,
                keeps=False,
            )[0][:, -1:]
            for row, text in enumerate(self._texts)
        ]
        return torch.cat(found)

    def _call(self, write: _Write, tokens: Tensor, past: Any) -> tuple[Tensor, Any]:
        return write(tokens, self._states, self._mask, past, keeps=self._keeps)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows, in this order; one may be there more than once."""
        # Copies: a row that is there twice goes on in two ways.
        self._texts = [list(self._texts[row]) for row in rows]
        index = torch.tensor(rows, device=self._mask.device)
        self._states = self._states[index]
        self._mask = self._mask[index]
        if self._past is not None:
            self._past.batch_select_indices(index)

    def keep_beams(self, rows: list[int], inputs: list[int]) -> None:
        """Go on with these rows, each with what was read of its input."""
        self.keep(rows)
