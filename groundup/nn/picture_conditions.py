"""What a model that makes pictures is told next to the picture: the time, and what is asked for.

Shape legend: B pictures, C channels, K classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NEAR_ZERO", "PictureConditions", "time_features"]

# Weights that papers start at 0, so that a block is the identity: next to 0 they are the same to
# the eye, and what is behind them learns from the first step on.
NEAR_ZERO = 1e-3
# The longest period of the features, in thousandths of the way.
_LONGEST = 10_000.0


def time_features(times: Tensor, width: int) -> Tensor:
    """Return (B, width) cosines and sines of times (B,) between 0 and 1, in as many frequencies.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762), section 3.5, of 1,000 times the time, as diffusion
        models have it: Ho et al., 2020 (arXiv:2006.11239), appendix B. The order is that of
        diffusers with ``flip_sin_to_cos`` and ``freq_shift`` 0.
    """
    half = width // 2
    places = torch.arange(half, device=times.device, dtype=times.dtype)
    angles = 1000.0 * times[:, None] * torch.exp(-math.log(_LONGEST) * places / half)
    return torch.cat([angles.cos(), angles.sin()], 1)


class PictureConditions(nn.Module):
    """A vector (B, C) of the time, the span and the class.

    A model trained without spans has seen spans of 0, and learns to read others from there.

    Args:
        features: Numbers that a time is told by.
        width: C.
        classes: K; a class more stands for nothing that is asked for. 0: none.
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.time = nn.Linear(2 * features, width)
        self.out = nn.Linear(width, width)
        # Spans are not heard before one was learned from: the first step of any length is then the
        # direction, and not that after a random shift.
        with torch.no_grad():
            self.time.weight[:, features:].zero_()
        # One more than there are classes, for nothing asked for: guidance goes away from it.
        self.classes: nn.Embedding | None = None
        if classes:
            # As large as PyTorch draws it: with the 0.02 of embeddings in texts, what is asked for
            # was hardly heard for the first thousand steps.
            self.classes = nn.Embedding(classes + 1, width)

    def forward(self, times: Tensor, spans: Tensor | None, classes: Tensor | None) -> Tensor:
        """Return (B, C)."""
        times = times.to(self.time.weight.dtype)
        spans = torch.zeros_like(times) if spans is None else spans.to(times.dtype)
        # Both as features: a linear layer of the plain time could not tell 0.02 from 0.04.
        told = [time_features(each, self.features) for each in (times, spans)]
        found = self.out(F.silu(self.time(torch.cat(told, 1))))
        if self.classes is not None:
            assert classes is not None, "the model is asked for a class"
            found = found + self.classes(classes)
        return found  # type: ignore[no-any-return]
