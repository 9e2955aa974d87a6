"""The objective of a step, as those see it who divide its work between processes."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from groundup.core.values import Batch, Loss

__all__ = ["Objective"]


class Objective(Protocol):
    """What the loop asks for each micro-batch: how it becomes outputs, and outputs a loss."""

    name: str
    """What it is called in errors."""

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs that a call takes."""

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return sums and counts."""

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count for each of its terms, as far as the batch tells."""
