"""What a classifier says of raw inputs: the probability of each class, and the classes chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.processors import LabelProcessor
from groundup.core.values import Example
from groundup.metrics.calibration import probabilities_of
from groundup.metrics.classification import has_label
from groundup.tasks.classify.evaluation import outputs_of

__all__ = ["accuracy_on", "chances_of", "choose"]


def chances_of(
    model: nn.Module,
    rows: Sequence[Any],
    processor: LabelProcessor,
    options: Mapping[str, Any],
    labels: str,
) -> Any:
    """Return (N, K) the probability of each class for each input; ``temperature`` divides the
    outputs first."""
    outputs = outputs_of(model, rows, processor)
    # 0 is what a caller of all tasks sends for greedy texts: here it changes nothing.
    temperature = float(options.get("temperature") or 1.0)
    return probabilities_of(outputs, several=labels == "multi_label", temperature=temperature)


def choose(chances: NDArray[np.float64], names: Sequence[str], labels: str) -> Any:
    """Return the likeliest class; of several labels those that an input has, the likeliest
    first."""
    order = chances.argsort()[::-1]
    if labels != "multi_label":
        return names[order[0]]
    return [names[k] for k in order if has_label(chances[k])]


def accuracy_on(model: nn.Module, processor: LabelProcessor, examples: Sequence[Example]) -> float:
    """Return the share of examples whose class is found."""
    # Of one label alone: of several, old and new data share no measure.
    outputs = outputs_of(model, [example.inputs for example in examples], processor)
    true = processor.targets.encode([example.target for example in examples])
    return float((torch.as_tensor(outputs).argmax(1) == true).double().mean())
