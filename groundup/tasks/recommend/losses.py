"""What each choice costs: by a softmax over all items or over some, by pairs, or by its rating.

Shape legend: B rows, T positions, N items, K drawn items, M candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.values import IGNORED, Batch

__all__ = ["bpr_losses", "rating_errors", "sampled_softmax_losses", "softmax_losses"]


def softmax_losses(scores: Tensor, batch: Batch, horizon: int = 1) -> Tensor:
    """Return (B, T) -log p of what was chosen, in nats, 0 where nothing is predicted.

    The softmax is over the items that training has seen.

    Args:
        scores: (B, N + 1), or (B, T, N + 1) of a model that says something at each position.
        batch: With ``next_tokens`` (B, T) and ``trained_items`` (B,).
        horizon: At each position the next so many items are predicted; the k-th counts 1 / sqrt(k).

    Source:
        More items than the next one: Pancha et al., PinnerFormer, 2022 (arXiv:2205.04507), section
        3.2.2. Departs from it: the weights.
    """
    targets = batch["next_tokens"]
    # Sums over thousands of items lose digits in 16 bits.
    scores = scores.float()
    items = torch.arange(scores.shape[-1], device=scores.device)
    last = batch["trained_items"].view(-1, *[1] * (scores.dim() - 1))
    scores = scores.masked_fill((items == 0) | (items > last), -torch.inf)
    log_total = scores.logsumexp(-1, keepdim=scores.dim() == 2)
    trained = targets != IGNORED
    losses = torch.zeros(targets.shape, device=scores.device)
    weights = torch.zeros_like(losses)
    length = targets.shape[1]
    for further in range(min(horizon, length)):
        # What comes so much later; nothing, behind the end.
        later = F.pad(targets[:, further:], (0, further), value=IGNORED)
        there = trained & (later != IGNORED)
        index = later.clamp(min=0)
        own = scores.gather(1, index) if scores.dim() == 2 else _at(scores, index)
        weight = there * (further + 1) ** -0.5
        # Untrained items are minus infinity, and are no targets of training.
        losses = losses + torch.where(there, (log_total - own) * weight, 0.0)
        weights = weights + weight
    return losses / weights.clamp(min=1.0)


def _at(scores: Tensor, index: Tensor) -> Tensor:
    return scores.gather(-1, index[..., None])[..., 0]


def sampled_softmax_losses(scores: Tensor, batch: Batch) -> Tensor:
    """Return (B, T) -log p of what was chosen, its softmax estimated from drawn items.

    Each drawn item counts one over how often it is expected among those drawn, so that the sum over
    all items is estimated without bias; one that is what was chosen itself is passed over.

    Args:
        scores: (B, T + K), or (B, T, T + K), of what was chosen and then of what was drawn.
        batch: With ``next_tokens`` (B, T), ``drawn`` (B, K) and ``log_expected`` (B, K).

    Source:
        Bengio and Senécal, 2008, "Adaptive importance sampling to accelerate training of a neural
        probabilistic language model", section 3.
    """
    own, drawn = _divide(scores, batch)  # (B, T), (B, T, K)
    corrected = drawn - batch["log_expected"][:, None]
    same = batch["drawn"][:, None] == batch["next_tokens"][..., None]
    others = corrected.masked_fill(same, -torch.inf).logsumexp(-1)
    # What was chosen is always in the sum, so the loss is never below 0.
    losses = torch.logaddexp(own, others) - own
    return torch.where(batch["next_tokens"] != IGNORED, losses, 0.0)


def bpr_losses(scores: Tensor, batch: Batch) -> Tensor:
    """Return (B, T) -log p that what was chosen is better than a drawn item, the mean over those
    drawn. Arguments as of ``sampled_softmax_losses``.

    Source:
        Rendle et al., BPR, 2009 (arXiv:1205.2618), section 4.1. Departs from it: items that the
        user chose at another time may be drawn.
    """
    own, drawn = _divide(scores, batch)
    pairs = -F.logsigmoid(own[..., None] - drawn)
    other = batch["drawn"][:, None] != batch["next_tokens"][..., None]
    losses = (pairs * other).sum(-1) / other.sum(-1).clamp(min=1)
    return torch.where(batch["next_tokens"] != IGNORED, losses, 0.0)


def rating_errors(scores: Tensor, batch: Batch) -> Tensor:
    """Return (B, T) predicted less true ratings, 0 where there is none.

    Args:
        scores: (B, T) of what was rated; or (B, T, T), at each position of all.
        batch: With ``ratings`` (B, T), less the mean of training, and ``next_tokens`` (B, T).
    """
    scores = scores.float()
    # A position is asked for the one item that was rated there.
    own = scores if scores.dim() == 2 else scores.diagonal(dim1=1, dim2=2)
    return torch.where(batch["next_tokens"] != IGNORED, own - batch["ratings"], 0.0)


def _divide(scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the scores of what was chosen (B, T), and of what was drawn (B, T, K)."""
    scores = scores.float()
    length = batch["next_tokens"].shape[1]
    if scores.dim() == 2:
        own = scores[:, :length]
        return own, scores[:, None, length:].expand(-1, length, -1)
    return scores[..., :length].diagonal(dim1=1, dim2=2), scores[..., length:]
