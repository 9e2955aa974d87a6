"""What a trained detector finds in raw pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from groundup.generation.scoring import device_of, evaluating
from groundup.processors.boxes import BoxesProcessor, mask_of, picture_in_inputs
from groundup.tasks.detect.detections import Choice, Found, find
from groundup.tasks.shared.model_outputs import move_batch

__all__ = ["find_in"]

# Pictures at a time: their maps are a hundred times as large as what is found.
_AT_ONCE = 32


def find_in(
    model: nn.Module,
    pictures: Sequence[Any],
    processor: BoxesProcessor,
    choice: Choice,
    *,
    masked: bool = False,
) -> list[Found]:
    """Return what a model finds in each of several raw pictures, on the CPU.

    Args:
        model: The detector.
        pictures: Paths, Pillow images or arrays.
        processor: What reads them.
        choice: Which of what it says are things found.
        masked: Whether the model reads a mask of what only pads the pictures.
    """
    device = device_of(model)
    precise = next(model.parameters()).dtype == torch.float64
    found: list[Found] = []
    with evaluating(model):
        for start in range(0, len(pictures), _AT_ONCE):
            batch = move_batch(processor.encode_inputs(pictures[start : start + _AT_ONCE]), device)
            inputs = batch["inputs"]
            # Pictures are float32, which only a model in another precision than fp64 reads.
            if precise:
                inputs = inputs.double()
            size = (inputs.shape[2], inputs.shape[3])
            # What is found leaves the device at once; the maps of the next pictures need the room.
            told = {"mask": mask_of(picture_in_inputs(batch), *size)} if masked else {}
            outputs = model(inputs=inputs, **told)
            for each in find(outputs, batch["frame"], size, choice):
                found.append(Found(*(values.cpu() for values in each)))
    return found
