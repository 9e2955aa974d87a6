"""What a detector finds: boxes with probabilities, of all that it says of its points or queries.

Shape legend: B pictures, A points, Q queries, C classes, M candidates, N things found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.nn.box_overlap import overlap
from groundup.nn.detections import read_detections

__all__ = ["Choice", "Found", "find", "suppress"]

# Candidates for each thing that may be found, before boxes of the same thing are left out.
_CANDIDATES = 3


@dataclass(frozen=True)
class Choice:
    """Which of the many boxes are things found.

    Attributes:
        threshold: The least probability.
        most: How many a picture may have.
        nms: Of two boxes of a class that overlap by more, the less probable one is left out.
    """

    threshold: float
    most: int
    nms: float


class Found(NamedTuple):
    """What was found in a picture, the most probable first.

    Attributes:
        boxes: (N, 4) left, top, right and bottom, in pixels of the picture as it was stored.
        scores: (N,) probabilities.
        labels: (N,) int64 numbers of classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def find(
    outputs: DenseDetections | SetDetections, frame: Tensor, size: tuple[int, int], choice: Choice
) -> Iterator[Found]:
    """Yield what was found in each picture of a batch.

    Args:
        outputs: The model's.
        frame: (B, 4) what brings places in the inputs back to the stored picture.
        size: Height and width of the inputs.
        choice: Which boxes count.
    """
    chances, boxes = (values.float() for values in read_detections(outputs))
    most = choice.most
    # Each query finds a thing of its own: nothing has to be left out.
    if isinstance(outputs, DenseDetections):
        most *= _CANDIDATES
    classes = chances.shape[2]
    # A place may show several things of different classes: each class competes by itself.
    flat = chances.flatten(1)
    scores, places = flat.topk(min(most, flat.shape[1]), dim=1)
    labels = places % classes
    boxes = boxes.gather(1, (places // classes)[..., None].expand(-1, -1, 4))
    # Rows of a batch have as many candidates; those that are too improbable are no boxes.
    kept = scores >= choice.threshold
    if isinstance(outputs, DenseDetections):
        kept = suppress(boxes, labels, kept, choice.nms)
    boxes = _in_the_stored_picture(boxes, frame, size)
    for row, keep in enumerate(kept):
        index = keep.nonzero()[: choice.most, 0]
        yield Found(boxes[row, index], scores[row, index], labels[row, index])


def suppress(boxes: Tensor, labels: Tensor, kept: Tensor, most: float) -> Tensor:
    """Return (B, M) which boxes are left once each takes away those of its class that overlap it
    and are less probable: non-maximum suppression.

    The same as one box after the other, but all at once: whether a box stays depends on those
    before it alone, so looking again as often as boxes depend on each other in a row settles all.

    Args:
        boxes: (B, M, 4), the most probable first.
        labels: (B, M) classes.
        kept: (B, M) which are boxes at all.
        most: The overlap above which a box is taken away.
    """
    alike = labels[:, :, None] == labels[:, None]
    takes = (overlap(boxes[:, :, None], boxes[:, None]) > most) & alike
    # (B, M, M): row i takes away column j, of those after it.
    takes = takes.triu(1)
    # It ends: in round n every box is settled that depends on n - 1 others in a row.
    left = kept
    while True:
        again = kept & ~(takes & left[:, :, None]).any(1)
        if torch.equal(again, left):
            return left
        left = again


def _in_the_stored_picture(boxes: Tensor, frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes (B, M, 4) of the inputs in pixels of the stored pictures, cut at their edges."""
    scale = frame[:, None, :2].repeat(1, 1, 2)
    offset = frame[:, None, 2:].repeat(1, 1, 2)
    placed = (boxes - offset) / scale
    # The margins that pad a picture are as wide on both sides, up to a pixel.
    height, width = size
    whole = torch.tensor([width, height] * 2, dtype=frame.dtype, device=frame.device)
    far = (whole - 2 * offset) / scale
    return torch.minimum(placed.clamp(min=0), far)
