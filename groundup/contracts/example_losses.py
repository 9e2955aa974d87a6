"""What privacy and membership tests ask of a task."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from groundup.core.values import Batch

__all__ = ["PerExampleLoss"]


@runtime_checkable
class PerExampleLoss(Protocol):
    """A task that tells the loss of each example of a batch.

    Differential privacy clips each example's gradient, and membership tests compare losses; both
    need them before they are added up.
    """

    def example_losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return (B,) the losses whose sum is the total of ``loss``, by what the model returns for
        ``prediction_inputs``."""
