"""The loss of group-relative policy optimisation, from log-probabilities alone.

Shape legend: B groups, G answers of a group, M tokens fed of a micro-batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PolicyTokens", "group_advantages", "overlong_penalty", "policy_tokens"]

_NO_SPREAD = 1e-4  # added to a group's standard deviation, as in TRL


class PolicyTokens(NamedTuple):
    """What a token contributes, each (M,).

    Attributes:
        loss: To minimise, the divergence included.
        divergence: An estimate of the divergence from the reference, in nats; 0 without one.
        clipped_low: Whether the ratio is below the range, where that stops the gradient.
        clipped_high: Whether it is above.
    """

    loss: Tensor
    divergence: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def group_advantages(rewards: Tensor, *, scaled: bool) -> Tensor:
    """Return how much better each answer is than the mean of its group, (B, G).

    Args:
        rewards: (B, G).
        scaled: Divide by the group's standard deviation.

    Source:
        Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2; without the division: Liu
        et al. 2025, "Understanding R1-Zero-like training", arXiv:2503.20783, section 3.2. The
        standard deviation is the sample's (G - 1), as in TRL.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if not scaled:
        return centred
    return centred / (rewards.std(1, keepdim=True) + _NO_SPREAD)


def overlong_penalty(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """Return 0 for answers that leave the buffer free, down to -1 for those that fill it.

    Args:
        lengths: Of the answers in tokens, of any shape.
        longest: The most tokens that an answer may have.
        buffer: How many of these are better left free.

    Source:
        Yu et al. 2025, "DAPO", arXiv:2503.14476, equation 13.
    """
    over = lengths - (longest - buffer)
    return -(over / buffer).clamp(0, 1)


def policy_tokens(
    log_probs: Tensor,
    before: Tensor,
    advantages: Tensor,
    clip: tuple[float, float],
    reference: Tensor | None = None,
    divergence_weight: float = 0.0,
) -> PolicyTokens:
    """Return the loss of each token.

    Args:
        log_probs: (M,) of the tokens under the weights that are trained, in nats.
        before: (M,) under the weights that wrote them; without a gradient.
        advantages: (M,) of the answers that they are in.
        clip: How far below and above 1 the ratio of the two may move with a gradient.
        reference: (M,) under the reference.
        divergence_weight: beta in the paper.

    Source:
        Shao et al. 2024, arXiv:2402.03300, equations 3 and 4, the latter being the estimator k3 of
        Schulman 2020, "Approximating KL divergence". Two sides of the clip: Yu et al. 2025,
        arXiv:2503.14476, equation 10.
    """
    low, high = clip
    ratio = (log_probs - before).exp()
    # The smaller of the two: beyond the range nothing is gained by going on, and a step that went
    # too far can still be taken back.
    kept = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantages, kept * advantages)
    divergence = torch.zeros_like(loss)
    if reference is not None:
        # Never below 0 for any token, unlike the plain log-ratio, and with less variance.
        apart = reference - log_probs
        divergence = apart.exp() - apart - 1
        loss = loss + divergence_weight * divergence
    return PolicyTokens(
        loss,
        divergence.detach(),
        ((ratio < 1 - low) & (advantages < 0)).detach(),
        ((ratio > 1 + high) & (advantages > 0)).detach(),
    )
