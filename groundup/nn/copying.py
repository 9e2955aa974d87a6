"""Tokens that a decoder copies from its input, next to those that it writes from the vocabulary.

Shape legend: B inputs, S positions of an input, R rows that are written (B, or a multiple of it),
    T positions, C width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.values import IGNORED
from groundup.nn.logits import widen
from groundup.nn.loss import linear_log_probs
from groundup.parallel.vocabulary import look_up, mean_row, rows_in

__all__ = ["CopyHead", "CopySource"]

# Added to probabilities before their logarithm: below it a token is as good as never copied.
_LEAST = 1e-20


class CopySource(NamedTuple):
    """What may be copied.

    Attributes:
        tokens: (B, S) int64.
        keys: (B, S, C) what each position is found by.
        mask: (B, 1, 1, S) booleans, which positions are no padding; None: all.
    """

    tokens: Tensor
    keys: Tensor
    mask: Tensor | None


class CopyHead(nn.Module):
    """The mixture of a softmax over the vocabulary and of one over the positions of the input.

    ``p(v) = g * softmax(logits)[v] + (1 - g) * (attention to all positions of the input with v)``,
    where the gate ``g`` is a sigmoid of the decoder's state. Rare names, which a small model never
    learns to write, need only be pointed at.

    Args:
        width: C.

    Source:
        See et al., Get To The Point, 2017 (arXiv:1704.04368), section 2.2. Departs from it: the
        tokens are parts of words, so that no vocabulary is extended; the attention is one of its
        own, of one head with scaled products; the gate reads the decoder's state alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 1)

    def read(self, tokens: Tensor, states: Tensor, mask: Tensor | None) -> CopySource:
        """Return what may be copied of inputs (B, S), by the encoder's states (B, S, C)."""
        return CopySource(tokens, self.key(states), mask)

    def log_probs(self, hidden: Tensor, logits: Tensor, source: CopySource) -> Tensor:
        """Return the mixture's log-probabilities (R, T, V).

        Args:
            hidden: (R, T, C) the decoder's last states.
            logits: (R, T, V) those of the vocabulary.
            source: What may be copied; R is B or a multiple of it.
        """
        attention = self._attention(hidden, source)
        write, copy = self._gates(hidden)
        rows = len(hidden) // len(source.tokens)
        index = source.tokens.repeat_interleave(rows, 0)[:, None].expand(attention.shape)
        copied = torch.zeros_like(logits, dtype=attention.dtype).scatter_add_(2, index, attention)
        written = widen(logits).log_softmax(-1)
        return torch.logaddexp(written + write, (copied + _LEAST).log() + copy)

    def losses(self, hidden: Tensor, weight: Tensor, targets: Tensor, source: CopySource) -> Tensor:
        """Return (2,) the sums over the targets of -log p, and of the mean of -log p of all tokens
        of the vocabulary, in nats; never all logits are held.

        Args:
            hidden: (B, T, C) the decoder's last states.
            weight: (V, C) the output layer.
            targets: (B, T) int64, -100 where nothing is trained.
            source: What may be copied.
        """
        attention = self._attention(hidden, source)
        write, copy = (each[..., 0] for each in self._gates(hidden))
        there = targets != IGNORED
        index = targets.clamp(min=0)
        log_p = linear_log_probs(hidden.flatten(0, 1), weight, index.flatten()).view_as(write)
        chosen = (attention * (source.tokens[:, None] == index[..., None])).sum(-1)
        found = torch.logaddexp(log_p + write, (chosen + _LEAST).log() + copy)
        # The mean over the vocabulary: that of the tokens that are only written, and what copying
        # adds to each different token of the input.
        norm = widen((hidden * look_up(weight, index)).sum(-1)) - log_p
        mean = widen(hidden @ mean_row(weight)) - norm + write
        own = torch.bmm(hidden, look_up(weight, source.tokens).transpose(1, 2))  # (B, T, S)
        written = widen(own) - norm[..., None] + write[..., None]
        same = source.tokens[:, :, None] == source.tokens[:, None]
        if source.mask is not None:
            same = same & source.mask[:, 0]
        copied = torch.bmm(attention, same.to(attention.dtype))
        # Each position counts by the share of its token that it is; padding not at all.
        shares = same.sum(-1).clamp(min=1).reciprocal().to(attention.dtype)
        if source.mask is not None:
            shares = shares * source.mask[:, 0, 0]
        more = torch.logaddexp(written, (copied + _LEAST).log() + copy[..., None]) - written
        mean = mean + (more * shares[:, None]).sum(-1) / rows_in(weight)
        zero = torch.zeros((), dtype=found.dtype, device=found.device)
        sums = [-torch.where(there, each, zero).sum() for each in (found, mean)]
        return torch.stack(sums)

    def _attention(self, hidden: Tensor, source: CopySource) -> Tensor:
        """Return (R, T, S), how much is copied from each position, in float32 or wider."""
        query = self.query(hidden)
        inputs = len(source.tokens)
        # Several texts about one input point at it together, as in CrossAttention.
        together = query.reshape(inputs, -1, query.shape[-1])
        keys = source.keys.to(query.dtype)
        scores = widen(torch.bmm(together, keys.transpose(1, 2))) / math.sqrt(query.shape[-1])
        if source.mask is not None:
            scores = scores.masked_fill(~source.mask[:, 0], -math.inf)
        return scores.softmax(-1).view(*query.shape[:2], -1)

    def _gates(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of writing and of copying, each (R, T, 1)."""
        gate = widen(self.gate(hidden))
        return F.logsigmoid(gate), F.logsigmoid(-gate)
