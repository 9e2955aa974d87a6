"""Finite scalar quantisation: a code of a few numbers, each of which takes a few values.

Shape legend: B pictures, D numbers of a code, R rows and S columns of codes, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.nn.logits import widen

__all__ = ["FiniteScalarQuantizer"]

# The bounds are a little beyond the last values: with two of them, the shift would be infinite.
_MARGIN = 1e-3


class FiniteScalarQuantizer(nn.Module):
    """Rounds each number of a code to one of a few values. It has no weights: the codebook is all
    combinations of the values, none of which can die.

    Source:
        Mentzer et al., 2023 (arXiv:2309.15505), section 3.1 and appendix A.1.
        The gradient of rounding is taken as 1: Bengio et al., 2013 (arXiv:1308.3432), section 2.3.
        Departs from it: the bounds are beyond the last values, not just short of them, so that a
        number may have two values.

    Args:
        levels: How many values each of the D numbers takes, 2 or more.
    """

    levels: Tensor
    steps: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.codebook_size = math.prod(levels)
        # Known from the settings, so no weights file has them.
        steps = [math.prod(levels[:n]) for n in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels).view(-1, 1, 1), persistent=False)
        self.register_buffer("steps", torch.tensor(steps).view(-1, 1, 1), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return (B, D, R, S) rounded numbers between -1 and 1, with the gradient of those that
        were not rounded."""
        bounded = self._bound(numbers)
        # Rounding has a gradient of 0 nearly everywhere: it is passed over on the way back.
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._half

    def codes(self, numbers: Tensor) -> Tensor:
        """Return int64 (B, R, S), the number of each code in the codebook."""
        # The lowest value is digit 0, whatever their number.
        digits = self._bound(numbers).round().long() + self._half
        return (digits * self.steps).sum(1)

    def from_codes(self, codes: Tensor) -> Tensor:
        """Return (B, D, R, S), what ``forward`` rounds to, of codes (B, R, S).

        Raises:
            DataError: If one is not in the codebook.
        """
        # Digits of a number beyond the codebook would be those of another code.
        outside = (codes < 0) | (codes >= self.codebook_size)
        # A graph for other programs has no branches that depend on numbers.
        if not torch.compiler.is_exporting() and bool(outside.any()):
            first = int(codes[outside][0])
            raise DataError(
                "codes",
                f"has the code {first}; allowed: 0 to {self.codebook_size - 1}, the codebook's",
                "Take codes of a model with the same levels",
            )
        digits = codes[:, None] // self.steps % self.levels
        return (digits - self._half).float() / self._half

    @property
    def _half(self) -> Tensor:
        """What the values are divided by: with an even number of them one more is below 0."""
        return self.levels // 2

    def _bound(self, numbers: Tensor) -> Tensor:
        """Return numbers that round to one of the values each."""
        # Near the edge between two values bfloat16 would not tell them apart.
        wide = widen(numbers)
        reach = (self.levels - 1) * (1 + _MARGIN) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        # An even number of values has none in the middle; numbers near 0 stay near 0.
        shift = (offset / reach).atanh()
        return (wide + shift).tanh() * reach - offset
