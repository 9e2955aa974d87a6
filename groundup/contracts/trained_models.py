"""The model of another run, taken over by a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor

__all__ = ["TakesTrainedModel", "TrainedModel"]


@dataclass(frozen=True)
class TrainedModel:
    """What a run has learned.

    Attributes:
        where: The run's folder, for messages.
        task: The registered name of its task.
        config: The settings of the model.
        model: With its weights, on the CPU, in evaluation mode.
        processor: What makes its inputs.
    """

    where: str
    task: str
    config: ModelConfig
    model: nn.Module
    processor: Processor


@runtime_checkable
class TakesTrainedModel(Protocol):
    """Settings of a processor that encodes by the model of another run, and keeps it: so that a run
    with this processor needs no other one."""

    @property
    def trained_run(self) -> tuple[str, str | int] | None:
        """The run's folder, and the checkpoint: ``best``, ``last`` or a step; None: with these
        settings it takes no other, and is fitted."""

    def fit_with(self, trained: TrainedModel, examples: Callable[[], Iterator[Any]]) -> Processor:
        """Return the processor.

        Raises:
            RecipeError: If the model is not of the kind that the processor encodes by.
        """
