"""A vocabulary of which each process has some of the rows: looking tokens up, logits, and losses
that never hold more than this process's part of them.

Shape legend: M tokens, C width, V vocabulary, N this process's rows of it.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from groundup.parallel.parts import Part

__all__ = [
    "Softmax",
    "add_column",
    "gather_logits",
    "look_up",
    "mark",
    "mean_row",
    "part_of",
    "rows_in",
]

# A layer hands its weight on to a loss, a plain tensor: here is what it is a part of.
_PARTS: MutableMapping[Tensor, Part] = WeakIdKeyDictionary()


def mark(weight: Tensor, part: Part) -> None:
    """Remember of which rows of a vocabulary a weight consists."""
    _PARTS[weight] = part


def part_of(weight: Tensor) -> Part | None:
    """Return of which rows of a vocabulary a weight consists; None: of all."""
    # Nothing is divided where a graph is exported, and this dictionary would make torch.export take
    # the number of rows of a batch for a constant.
    if torch.compiler.is_exporting():
        return None
    return _PARTS.get(weight)


def look_up(weight: Tensor, tokens: Tensor, padding: int | None = None) -> Tensor:
    """Return the rows of tokens, (..., C), from a weight (V, C), or (N, C) where it is a part.

    Args:
        weight: The rows.
        tokens: (...) int64.
        padding: A token whose row gets no gradient here, where the weight is a part.
    """
    part = part_of(weight)
    if part is None:
        return weight[tokens]
    own, there = _own(tokens, part)
    if padding is not None:
        # Wherever the row is, it is read as a constant.
        weight = torch.where(_rows(weight, part, padding), weight.detach(), weight)
    return part.peers.add_up(F.embedding(own, weight) * there[..., None])


def mean_row(weight: Tensor) -> Tensor:
    """Return the mean of all rows, (C,), of a weight (V, C), or (N, C) where it is a part."""
    part = part_of(weight)
    if part is None:
        return weight.mean(0)
    return part.peers.add_up(weight.sum(0)) / part.whole


def rows_in(weight: Tensor) -> int:
    """Return V of a weight (V, C), or (N, C) where it is a part."""
    part = part_of(weight)
    return len(weight) if part is None else part.whole


def add_column(weight: Tensor, column: Tensor) -> Tensor:
    """Return a weight (V, C + 1) of a weight (V, C) and a number for each row (V,); or (N, C + 1),
    a part as well, where it is a part."""
    part = part_of(weight)
    own = column if part is None else part.take(column)
    wider = torch.cat((weight, own[:, None].to(weight.dtype)), 1)
    if part is not None:
        mark(wider, part)
    return wider


def gather_logits(logits: Tensor, part: Part) -> Tensor:
    """Return all logits (..., V) from this process's (..., N).

    For what needs them whole: a softmax over them, the likeliest token, another model's.
    """
    return part.peers.gather(logits, list(part.lengths))


class Softmax:
    """The softmax of logits that are divided over processes.

    Args:
        logits: (M, N) in float32 or wider; they are overwritten.
        part: Of the vocabulary.
        targets: (M,) int64, each a token of the whole vocabulary.

    Attributes:
        log_probs: (M,) of the targets, whole.
    """

    def __init__(self, logits: Tensor, part: Part, targets: Tensor) -> None:
        own, there = _own(targets, part)
        self._index = own[:, None]
        self._there = there[:, None]
        largest = part.peers.largest(logits.amax(1))[:, None]
        chosen = torch.where(self._there, logits.gather(1, self._index) - largest, 0.0)
        self._exponentials = logits.sub_(largest).exp_()
        # Two numbers a token are all that is exchanged, where the logits are thousands.
        said = torch.stack((self._exponentials.sum(1), chosen[:, 0]))
        self._norm, chosen = part.peers.sum(said)
        self.log_probs = chosen - self._norm.log()

    def slopes(self) -> Tensor:
        """Return d log p of each target / d its logits, (M, N), in place of the logits: 1 at the
        target, less the probabilities."""
        slopes = self._exponentials.div_(self._norm[:, None]).neg_()
        # From the fine logarithm: the probability may be close to 1.
        at_target = -torch.expm1(self.log_probs)[:, None]
        at_target = torch.where(self._there, at_target, slopes.gather(1, self._index))
        return slopes.scatter_(1, self._index, at_target)


def _own(tokens: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """Return the numbers of tokens among this process's rows, 0 for those of others, and which are
    its own."""
    shifted = tokens - part.first
    there = (shifted >= 0) & (shifted < part.length)
    return torch.where(there, shifted, 0), there


def _rows(weight: Tensor, part: Part, token: int) -> Tensor:
    """Return (N, 1) booleans: which row is a token's."""
    rows = torch.arange(part.length, device=weight.device)
    return (rows == token - part.first)[:, None]
