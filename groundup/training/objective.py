"""What a run minimises, in one place: how a batch becomes outputs, and outputs a loss."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from groundup.core.contracts.tasks import Task
from groundup.core.values import Batch, Loss

__all__ = ["Objective", "TaskObjective"]


class Objective(Protocol):
    """What the loop asks for each micro-batch."""

    name: str
    """What it is called in errors."""

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the outputs that a call takes."""

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return sums and counts; the loop divides once, by the count of the whole step."""

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return what the loss will count for each of its terms, as far as the batch alone tells;
        see ``Task.counts``."""


class TaskObjective:
    """The task's own.

    Args:
        task: The run's.
        model: The run's, which a task may ask again or find parameters of its own in.
        processor: The run's.
    """

    def __init__(self, task: Task, model: nn.Module, processor: Any) -> None:
        self.name = f"task {task.registered_name}"
        self._task = task
        self._loss = task.build_objective(model, processor)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Run the model as the task does."""
        return self._task.forward(model, batch)

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the task's loss."""
        return self._loss(outputs, batch)

    def counts(self, batch: Batch) -> dict[str, float] | None:
        """Return the task's counts."""
        return self._task.counts(batch)
