"""Losses of preference tuning: functions of log-probabilities alone, one value for each pair or
labelled answer.

Shape legend: B pairs, or labelled answers; of a pair, column 0 is the chosen answer and column 1
the rejected one. "Log-ratio" is log p of an answer under the model less
that under the reference, in nats.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "dpo_loss",
    "ipo_loss",
    "kto_loss",
    "log_odds",
    "mismatched_divergence",
    "orpo_loss",
    "share_right",
    "simpo_loss",
]

_TIE = 1e-3  # nats: margins below it are rounding, and count as half right


def dpo_loss(ratios: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Return -log sigmoid of beta times how much further the chosen answer rose than the rejected
    one, (B,).

    Args:
        ratios: (B, 2) log-ratios of whole answers.
        beta: How expensive it is to leave the reference.
        label_smoothing: The share of pairs that are thought to be the wrong way round.

    Source:
        Rafailov et al. 2023, "Direct preference optimization", arXiv:2305.18290, equation 7; the
        smoothing: Mitchell 2023, "A note on DPO with noisy preferences", equation 3.
    """
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def ipo_loss(averages: Tensor, beta: float) -> Tensor:
    """Return the squared distance of the margin from 1 / (2 beta), (B,).

    Args:
        averages: (B, 2) log-ratios a token.
        beta: tau in the paper: the larger, the nearer to the reference the margin that is aimed at.

    Source:
        Azar et al. 2023, "A general theoretical paradigm to understand learning from human
        preferences", arXiv:2310.12036, equation 17. Log-ratios are means over an answer's tokens,
        not sums, as in the authors' own experiments and in TRL; else one beta would not do for
        short answers and long ones.
    """
    return (averages[:, 0] - averages[:, 1] - 1 / (2 * beta)) ** 2


def orpo_loss(averages: Tensor, weight: float) -> Tensor:
    """Return -log p a token of the chosen answer, plus the weighted -log sigmoid of the log odds
    ratio, (B,).

    Args:
        averages: (B, 2) log p a token, below 0.
        weight: lambda in the paper.

    Source:
        Hong et al. 2024, "ORPO: monolithic preference optimization without reference model",
        arXiv:2403.07691, equations 4 to 7.
    """
    odds = log_odds(averages)
    return -averages[:, 0] - weight * F.logsigmoid(odds[:, 0] - odds[:, 1])


def log_odds(log_probs: Tensor) -> Tensor:
    """Return log p - log(1 - p), exactly where p is near 0 or near 1."""
    below = log_probs.clamp(max=-torch.finfo(log_probs.dtype).tiny)  # p = 1 has no odds
    # log(1 - p) by two formulas, each exact where the other cancels; -0.693 is about -ln 2.
    near_one = torch.log(-torch.expm1(below))
    # Clamped, although it is not chosen there: near 0 its gradient is NaN, and NaN times 0 is NaN.
    near_none = torch.log1p(-torch.exp(below.clamp(max=-0.5)))
    return log_probs - torch.where(below > -0.693, near_one, near_none)


def simpo_loss(averages: Tensor, beta: float, gamma: float) -> Tensor:
    """Return -log sigmoid of beta times the margin in log p a token, less the margin that is aimed
    at, (B,).

    Args:
        averages: (B, 2) log p a token.
        beta: What log p is multiplied with.
        gamma: The margin aimed at.

    Source:
        Meng et al. 2024, "SimPO: simple preference optimization with a reference-free reward",
        arXiv:2405.14734, equation 6.
    """
    return -F.logsigmoid(beta * (averages[:, 0] - averages[:, 1]) - gamma)


def mismatched_divergence(ratios: Tensor) -> Tensor:
    """Return how far the model is from the reference, at least 0, a scalar without a gradient; see
    ``kto_loss``.

    Args:
        ratios: (B,) log-ratios of answers that were given to other prompts.
    """
    return ratios.detach().mean().clamp(min=0)


def kto_loss(
    ratios: Tensor,
    divergence: Tensor,
    good: Tensor,
    beta: float,
    desirable: float = 1.0,
    undesirable: float = 1.0,
) -> Tensor:
    """Return how little an answer is worth, (B,): good ones are to rise above the divergence, bad
    ones to fall below.

    Args:
        ratios: (B,) log-ratios of whole answers.
        divergence: Of the model from the reference, a scalar; ``mismatched_divergence`` estimates
            it.
        good: (B,) bool.
        beta: How soon more is worth no more.
        desirable: The weight of good answers.
        undesirable: The weight of bad ones.

    Source:
        Ethayarajh et al. 2024, "KTO: model alignment as prospect theoretic optimization",
        arXiv:2402.01306, equations 7 and 8.
    """
    risen = beta * (ratios - divergence)
    return torch.where(good, desirable * torch.sigmoid(-risen), undesirable * torch.sigmoid(risen))


def share_right(margins: Tensor) -> Tensor:
    """Return 1 where a margin is above 0, 0 where it is below, and 1/2 where nothing but rounding
    tells it from 0."""
    # The weights that training starts from differ from the reference by rounding: without a band
    # around 0 their accuracy would be that of a coin, not the half that ties stand for.
    return torch.where(margins.abs() < _TIE, 0.5, (margins > 0).to(margins.dtype))
