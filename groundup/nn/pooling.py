"""From the states of a sequence to one vector, whatever the padding holds.

Shape legend: B rows, T positions, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = [
    "AttentionPooling",
    "first_state",
    "greatest_state",
    "last_state",
    "mean_state",
    "weighted_mean_state",
    "within",
]


def within(lengths: Tensor | None, x: Tensor) -> Tensor:
    """Return (B, T) booleans: which positions of x (B, T, ...) are no padding. Without lengths all
    are."""
    if lengths is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def mean_state(x: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over the positions inside, (B, C), of x (B, T, C)."""
    return x.masked_fill(~inside[..., None], 0.0).sum(1) / inside.sum(1, keepdim=True)


def last_state(x: Tensor, inside: Tensor) -> Tensor:
    """Return the state at the last position inside, (B, C), of x (B, T, C)."""
    # Padding is at the end.
    last = inside.sum(1) - 1
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)


def greatest_state(x: Tensor, inside: Tensor) -> Tensor:
    """Return the largest number of each channel over the positions inside, (B, C)."""
    return x.masked_fill(~inside[..., None], -torch.inf).amax(1)


def first_state(x: Tensor, inside: Tensor) -> Tensor:
    """Return the state at the first position, (B, C)."""
    return x[:, 0]


def weighted_mean_state(x: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over the positions inside, the n-th with the weight n, (B, C).

    Source:
        Muennighoff, SGPT, 2022 (arXiv:2202.08904), equation 1.
    """
    weights = torch.arange(1, x.shape[1] + 1, device=x.device) * inside
    total: Tensor = (x.masked_fill(~inside[..., None], 0.0) * weights[..., None]).sum(1)
    return total / weights.sum(1, keepdim=True)


class AttentionPooling(nn.Module):
    """The mean over positions, weighted by a softmax of learned scores.

    Source:
        Yang et al., 2016, "Hierarchical attention networks for document classification", equations
        5 to 7.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)
        nn.init.xavier_uniform_(self.score.weight)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Return (B, C) from x (B, T, C) and which positions are no padding (B, T)."""
        scores = self.score(torch.tanh(self.hidden(x))).squeeze(-1).masked_fill(~inside, -torch.inf)
        return (scores.softmax(1)[..., None] * x).sum(1)  # type: ignore[no-any-return]
