"""Random numbers of samples, each a function of (seed, operation, sample number).

Shape legend: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.core import seeding

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Random numbers of a micro-batch's samples: functions of (seed, operation, sample number)."""

    seed: int
    samples: NDArray[np.int64]
    role: str = ""

    def __call__(self, operation: str, count: int = 1) -> NDArray[np.float64]:
        """Return (count, B) numbers in [0, 1)."""
        return seeding.uniforms(self.seed, f"augment {self.role}{operation}", self.samples, count)

    def symmetric(self, operation: str, largest: float) -> NDArray[np.float64]:
        """Return (B,) numbers between -largest and largest."""
        found: NDArray[np.float64] = (2 * self(operation)[0] - 1) * largest
        return found

    def beta(self, operation: str, a: float) -> NDArray[np.float64]:
        """Return (B,) numbers distributed as Beta(a, a).

        Source:
            Bailey, 1994, "Polar generation of random variates with the t-distribution", Mathematics
            of Computation 62 (206); 1/2 + t / (2 sqrt(2a + t^2)) of a t with 2a degrees of freedom
            is Beta(a, a).
        """
        radius, angle = self(operation, 2)
        # With a near 0 the power overflows: the share is then 0 or 1, as it should be.
        with np.errstate(over="ignore", divide="ignore"):
            squared = np.minimum((1 - radius) ** (-1 / a) - 1, 1e300)
        cosine = np.cos(2 * np.pi * angle)
        t = cosine * np.sqrt(squared) / np.sqrt(1 + squared * cosine**2)
        found: NDArray[np.float64] = np.clip(0.5 + 0.5 * t, 0.0, 1.0)
        return found

    def normal(self, operation: str, shape: Sequence[int]) -> Tensor:
        """Return (B, *shape) standard normal numbers."""
        # A generator of its own for each sample: a row does not depend on the others.
        words = (
            seeding.generator(self.seed, f"augment {self.role}{operation}", int(n))
            for n in self.samples
        )
        return torch.stack([torch.randn(*shape, generator=word) for word in words])
