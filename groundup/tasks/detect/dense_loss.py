"""The loss of detectors that say at each point of their maps what is there.

Shape legend: B pictures, K boxes, A points, C classes, R bins, P points that are to find a box.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.contracts.detection import DenseDetections
from groundup.core.settings import Settings, setting
from groundup.core.values import IGNORED, Batch, Loss, Term
from groundup.nn.box_distances import decode_distances, distances_to
from groundup.nn.box_overlap import generalized_overlap
from groundup.nn.logits import widen
from groundup.tasks.detect.assignment import NO_BOX, assign

__all__ = ["DenseLoss", "real_boxes"]

# What is left of the last bin, so that a distance has two bins around it.
_INSIDE_LAST_BIN = 0.01


class DenseLoss(Settings):
    """Assign points to boxes by what the detector makes of both, and take the loss of classes and
    edges.

    Classes learn by the quality focal loss, edges by 1 - GIoU and the distribution focal loss.
    """

    candidates: int = setting(10, "Points that learn from a box, at most", ge=1)
    alpha: float = setting(
        1.0, "Exponent of the probability of the class, in choosing the points of a box", ge=0
    )
    beta: float = setting(
        6.0, "Exponent of the overlap of the predicted box, in choosing the points of a box", gt=0
    )
    gamma: float = setting(
        2.0, "Of the quality focal loss: 0 counts all points alike, easy ones too", ge=0
    )
    class_weight: float = setting(1.0, "Weight of the loss of classes", gt=0)
    giou_weight: float = setting(2.0, "Weight of 1 - generalised overlap", gt=0)
    distribution_weight: float = setting(
        0.5, "Weight of the distribution focal loss, of detectors with bins", ge=0
    )

    def __call__(self, outputs: DenseDetections, batch: Batch) -> Loss:
        """Return one term: the weighted sum of the three losses and how many boxes there are.

        Every sum is over points, and is divided by ``candidates``, the points of a box: so it is a
        loss of a box. The losses of edges weigh each point by how sure it is to be. In the loss of
        classes, points in a crowd region that are to find no box have no part.

        Source:
            Quality focal loss, distribution focal loss and the weighing: Li et al., 2020
            (arXiv:2006.04388), equations 4 and 6 and section 3.3; the probabilities asked for:
            Feng et al., TOOD, 2021 (arXiv:2108.07755), equation 5; GIoU: Rezatofighi et al., 2019
            (arXiv:1902.09630).
            Departs from them: they divide by the number of points, or the sum of their
            probabilities; by the number of boxes the scale is known from the batch alone, and does
            not change while the detector learns. With bins, GIoU sees the expected distance.
        """
        # A product of a probability and the sixth power of an overlap needs float32.
        logits = widen(outputs.logits)
        distances = widen(outputs.distances)
        boxes = batch["boxes"].to(logits.dtype)
        points = outputs.points.to(logits.dtype)
        strides = outputs.strides.to(logits.dtype)
        found = decode_distances(distances, points, strides)
        wanted = real_boxes(batch)
        # Without gradients: which point is to learn what is no function to be improved.
        assigned = assign(
            logits.detach().sigmoid(),
            found.detach(),
            points,
            boxes,
            batch["labels"],
            wanted,
            candidates=self.candidates,
            alpha=self.alpha,
            beta=self.beta,
        )
        picture, point = (assigned.box != NO_BOX).nonzero(as_tuple=True)  # (P,) each
        box = assigned.box[picture, point]
        score = assigned.score[picture, point]
        # Soft targets: a point is to be as sure as its box is right.
        target = torch.zeros_like(logits)
        target[picture, point, batch["labels"][picture, box]] = score
        counted = (assigned.box != NO_BOX) | ~_in_crowds(points, batch)
        corners = boxes[picture, box]
        apart = score * (1 - generalized_overlap(found[picture, point], corners))
        wish = distances_to(corners, points[point], strides[point])
        spread = score * _distribution_loss(distances[picture, point], wish)
        parts = {
            "class": (self._class_losses(logits, target) * counted[..., None]).sum(),
            "giou": apart.sum(),
            "distribution": spread.sum(),
        }
        weights = {
            "class": self.class_weight,
            "giou": self.giou_weight,
            "distribution": self.distribution_weight,
        }
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        count = wanted.sum().float()
        # Watched alone: gradients are those of the weighted sum.
        watched = {name: part.detach() / self.candidates for name, part in parts.items()}
        return Loss({"boxes": Term(total / self.candidates, count)}, watched)

    def _class_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (B, A, C) the quality focal loss."""
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if not self.gamma:
            return each
        return each * (target - logits.sigmoid()).abs() ** self.gamma


def real_boxes(batch: Batch) -> Tensor:
    """Return (B, K) which of a batch's boxes are things to be found: no padding, and no crowd."""
    return (batch["labels"] != IGNORED) & ~batch["crowd"]


def _in_crowds(points: Tensor, batch: Batch) -> Tensor:
    """Return (B, A) which points are inside a crowd region."""
    crowds = batch["crowd"] & (batch["labels"] != IGNORED)
    boxes = batch["boxes"]
    if not crowds.any():
        return torch.zeros(len(boxes), len(points), dtype=torch.bool, device=boxes.device)
    # Of the point alone: what it predicts says nothing of what it sees.
    low = points - boxes[:, :, None, :2]
    high = boxes[:, :, None, 2:] - points
    inside = torch.minimum(low, high).amin(-1) >= 0
    return (inside & crowds[..., None]).any(1)


def _distribution_loss(distances: Tensor, wish: Tensor) -> Tensor:
    """Return (P,) how unlikely logits (P, 4, R) find the two bins around the distances (P, 4)
    wished for, the nearer one weighing more; 0 where there are no bins."""
    bins = distances.shape[-1]
    if bins == 1:
        return wish.new_zeros(len(wish))
    # Beyond the last bin the nearest that can be said: a box that is too large for this map.
    inside = wish.clamp(0.0, bins - 1 - _INSIDE_LAST_BIN)
    below = inside.floor()
    share = inside - below
    chances = distances.log_softmax(-1)
    index = below.long()[..., None]
    lower = chances.gather(-1, index)[..., 0]
    upper = chances.gather(-1, index + 1)[..., 0]
    return -((1 - share) * lower + share * upper).mean(-1)
