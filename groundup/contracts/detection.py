"""What detection is taught by and what detectors return: boxes around things in pictures.

Shape legend: B pictures, K boxes, A anchor points, Q queries, C classes, R bins of a distance.

A batch of ``detect`` holds, next to ``inputs`` (B, 3, H, W):

- ``boxes`` float32 (B, K, 4): left, top, right and bottom, in pixels of ``inputs``; K is the most
  that a picture of the batch has, the others are padded with zeros;
- ``labels`` int64 (B, K): the number of each box's class; ``IGNORED`` where there is no box;
- ``crowd`` bool (B, K): regions of many things that nobody told apart: neither right nor wrong;
- ``picture`` float32 (B, 4), where a model is to know what only pads a picture: left, top, right
  and bottom of the picture in ``inputs``;
- ``frame`` float32 (B, 4): what brings a place in ``inputs`` back to the picture as it was stored:
  x = (x - frame[2]) / frame[0], and y = (y - frame[3]) / frame[1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Boxes", "DenseDetections", "DrawsPredictions", "OwnPictureClass", "SetDetections"]


@dataclass(frozen=True)
class Boxes:
    """What is in a picture: the target of an example of detection; no rows where nothing is.

    Attributes:
        corners: float32 (K, 4): left, top, right and bottom, in pixels of the picture turned
            upright as its EXIF says; 0, 0 is the corner, not the middle, of its first pixel.
        labels: The K names of classes.
        crowd: (K,) regions of many things that are not told apart.
        areas: float32 (K,) in square pixels: of the outlines where the data have them, else of the
            boxes. Metrics by size sort by it.
    """

    corners: NDArray[np.float32]
    labels: tuple[str, ...]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]


@dataclass(frozen=True)
class DenseDetections:
    """What a one-stage detector says at each point of its feature maps.

    Attributes:
        logits: (B, A, C), of each class by itself (a sigmoid makes them probabilities).
        distances: (B, A, 4, R) logits of the distances from the point to the left, top, right and
            bottom edge, in strides: bin r stands for r. With R = 1 the distance itself.
        points: (A, 2) x and y of the points, in pixels of ``inputs``.
        strides: (A,) pixels between neighbouring points of the map a point is of.
    """

    logits: Tensor
    distances: Tensor
    points: Tensor
    strides: Tensor


@dataclass(frozen=True)
class SetDetections:
    """What a detector says whose queries each find one thing or nothing.

    Attributes:
        logits: (B, Q, C) of each class by itself; or (B, Q, C + 1), the last being "nothing", where
            a softmax makes them probabilities.
        boxes: (B, Q, 4) left, top, right and bottom, in pixels of ``inputs``.
        earlier: What earlier layers say, of which the loss is taken as well.
        nothing: Whether the last of the logits is "nothing": their number alone does not tell.
        sizes: (B, 2) width and height of each picture in pixels of ``inputs``, without what pads
            it: the unit of distances between boxes in the loss. None: ``inputs`` as a whole.
        corners: (B, 2) x and y where each picture begins in ``inputs``. None: at 0, 0.
    """

    logits: Tensor
    boxes: Tensor
    earlier: tuple[SetDetections, ...] = ()
    nothing: bool = False
    sizes: Tensor | None = None
    corners: Tensor | None = None

    def probabilities(self) -> Tensor:
        """Return (B, Q, C), of each class."""
        # In bfloat16 probabilities would have two digits.
        logits = self.logits.to(torch.promote_types(self.logits.dtype, torch.float32))
        if self.nothing:
            return logits.softmax(-1)[..., :-1]
        return logits.sigmoid()


@runtime_checkable
class OwnPictureClass(Protocol):
    """Settings of a model whose pictures ``transformers`` prepares by a class of its own, which
    also makes boxes of what the model says."""

    def processor_to_huggingface(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the contents of preprocessor_config.json for that class, from what the processor
        of pictures says of itself."""


@runtime_checkable
class DrawsPredictions(Protocol):
    """A task whose predictions can be shown in the pictures that they are of."""

    def draw(self, inputs: Sequence[Any], predicted: Sequence[Any]) -> list[NDArray[np.uint8]]:
        """Return pictures (H, W, 3) of raw inputs, with what was predicted drawn into each."""
