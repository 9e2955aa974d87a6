"""What detectors say, as probabilities and boxes.

Shape legend: B pictures, A points or queries, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.nn.box_distances import decode_distances

__all__ = ["read_detections"]


def read_detections(outputs: DenseDetections | SetDetections) -> tuple[Tensor, Tensor]:
    """Return (B, A, C) probabilities of each class by itself, and (B, A, 4) left, top, right and
    bottom in pixels of the inputs; nothing is left out."""
    if isinstance(outputs, SetDetections):
        return outputs.probabilities(), _at_least_single(outputs.boxes)
    distances = _at_least_single(outputs.distances)
    boxes = decode_distances(distances, outputs.points, outputs.strides)
    return _at_least_single(outputs.logits).sigmoid(), boxes


def _at_least_single(values: Tensor) -> Tensor:
    """Return values in float32 at least: in bfloat16 probabilities would have two digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
