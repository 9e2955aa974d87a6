"""What a model that makes pictures is told next to the picture: the time, and what is asked for.

Shape legend: B pictures, C channels, K classes, P places of a picture, S states of a text, D their
    width, H heads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NEAR_ZERO", "PictureConditions", "TextKeys", "Told", "attend", "time_features"]

# Weights that papers start at 0, so that a block is the identity: next to 0 they are the same to
# the eye, and what is behind them learns from the first step on.
NEAR_ZERO = 1e-3
# The longest period of the features, in thousandths of the way.
_LONGEST = 10_000.0


class Told(NamedTuple):
    """What every layer is told.

    Attributes:
        vector: (B, E), of the time and of what is asked for as a whole.
        states: (B, S, D) of a text that is asked for, at least one; None: nothing is asked for so.
        padding: (B, 1, 1, S) booleans, which of them are none.
    """

    vector: Tensor
    states: Tensor | None = None
    padding: Tensor | None = None


class TextKeys(nn.Module):
    """Keys and values (B, S, C) of the states (B, S, D) of a text."""

    def __init__(self, states: int, width: int) -> None:
        super().__init__()
        # As PyTorch draws them: next to 0 a text would be looked at by nobody for long.
        self.key = nn.Linear(states, width)
        self.value = nn.Linear(states, width)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        return self.key(states), self.value(states)


def attend(
    places: tuple[Tensor, Tensor, Tensor], text: nn.Module | None, told: Told, heads: int
) -> Tensor:
    """Return (B, P, C), what every place of a picture finds at all places, and in the text.

    Args:
        places: Queries, keys and values of the places, each (B, P, C).
        text: ``TextKeys``; None: the model reads no text.
        told: The text's states, and which of them are padding.
        heads: Attention heads.

    Source:
        Keys and values of the text next to those of the places: Nichol et al., GLIDE, 2021
        (arXiv:2112.10741), section 3.
    """
    query, key, value = (_split(each, heads) for each in places)
    # Written out: PyTorch's fused kernel is slow backward in bf16 on a CPU, and has no forward
    # derivative, which MeanFlow takes. A small map has few products.
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if text is not None:
        assert told.states is not None, "the model is asked for a text"
        assert told.padding is not None
        key, read = (_split(each, heads) for each in text(told.states))
        found = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        # One softmax over both: what a place finds in the text, it does not look for elsewhere.
        scores = torch.cat([found.masked_fill(told.padding, -torch.inf), scores], 3)
        value = torch.cat([read, value], 2)
    weights = scores.softmax(-1)
    gathered: Tensor = weights.to(value.dtype) @ value
    return gathered.transpose(1, 2).flatten(2)


def _split(x: Tensor, heads: int) -> Tensor:
    """Return (B, H, P, C / H) of x (B, P, C)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


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
