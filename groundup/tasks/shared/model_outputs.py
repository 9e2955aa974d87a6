"""What a trained model says of raw inputs.

Legend: N inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.processors import LabelProcessor
from groundup.core.values import Batch
from groundup.generation.scoring import device_of, evaluating

__all__ = ["model_outputs", "move_batch"]

_AT_ONCE = 1024


def model_outputs(
    model: nn.Module,
    inputs: Sequence[Any],
    processor: LabelProcessor,
    call: Callable[..., Tensor] | None = None,
) -> list[Tensor]:
    """Return the outputs for N raw inputs, in parts of a thousand rows, on the model's device.

    Args:
        model: It is asked in evaluation mode, without gradients.
        inputs: N of them.
        processor: Encodes them.
        call: What is asked, such as ``model.features``; by default the model.
    """
    call = call or model
    device = device_of(model)
    found = []
    with evaluating(model):
        for start in range(0, len(inputs), _AT_ONCE):
            encoded = processor.encode_inputs(inputs[start : start + _AT_ONCE])
            found.append(call(**move_batch(encoded, device)))
    return found


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    return {name: values.to(device) for name, values in batch.items()}
