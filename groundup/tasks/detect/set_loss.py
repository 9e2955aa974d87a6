"""The loss of detectors whose queries each find one thing or nothing.

Shape legend: N sets of predictions (B pictures of each layer), Q queries, K boxes, C classes, M
    matched pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.contracts.detection import SetDetections
from groundup.core.settings import Settings, setting
from groundup.core.values import IGNORED, Batch, Loss, Term
from groundup.nn.box_head import to_centres
from groundup.nn.box_overlap import areas, generalized_overlap, intersections, overlap
from groundup.nn.logits import widen
from groundup.tasks.detect.matching import (
    UNMATCHED,
    class_costs,
    focal_class_costs,
    match,
    match_costs,
)

__all__ = ["SetLoss"]

# Of the area of a prediction that nothing was matched with: inside a crowd it is not wrong.
_IN_A_CROWD = 0.5
# What matching weighs a class by, of a softmax and of sigmoids: the papers' numbers.
_SOFTMAX_COST, _SIGMOID_COST = 1.0, 2.0
# Of the focal cost of matching.
_COST_ALPHA, _COST_GAMMA = 0.25, 2.0


class SetLoss(Settings):
    """Match each box with one query, and take the loss of classes and boxes of the pairs.

    A model with a class "nothing" learns by the cross-entropy of a softmax; one without by the loss
    that ``objective`` names, of each class by itself.
    """

    objective: Literal["varifocal", "focal"] = setting(
        "varifocal",
        "Loss of classes of a model without a class nothing: varifocal asks for the overlap of the"
        " box as probability, focal for 1",
    )
    class_cost: float | None = setting(
        None,
        "Weight of the class in matching; null: 1 with a class nothing, 2 without",
        ge=0,
    )
    box_cost: float = setting(5.0, "Weight of the L1 distance of boxes in matching", ge=0)
    giou_cost: float = setting(2.0, "Weight of the generalised overlap in matching", ge=0)
    class_weight: float = setting(1.0, "Weight of the loss of classes", gt=0)
    box_weight: float = setting(5.0, "Weight of the L1 distance of matched boxes", ge=0)
    giou_weight: float = setting(2.0, "Weight of 1 - generalised overlap of matched boxes", ge=0)
    nothing_weight: float = setting(
        0.1, "Weight of queries that find nothing, of a model with that class", gt=0, le=1
    )
    alpha: float = setting(
        0.75, "Of the loss of classes by themselves: weight of what is no such thing", ge=0, le=1
    )
    gamma: float = setting(
        2.0, "Of the loss of classes by themselves: 0 counts all queries alike", ge=0
    )

    def __call__(self, outputs: SetDetections, batch: Batch) -> Loss:
        """Return the sums of three terms over all layers: ``class``, ``box`` and ``giou``.

        Each counts the boxes, crowds not among them; the class term of a softmax counts the weights
        of all queries, as its mean is taken in the paper. A prediction that found nothing and is
        mostly inside a crowd region has no part in the loss of classes. The metric
        ``boxes_without_query`` counts boxes that were more than there are queries.

        Source:
            Carion et al., 2020 (arXiv:2005.12872), section 3.1 and appendix A.2; focal: Lin et al.,
            2017 (arXiv:1708.02002), equation 5; varifocal: Zhang et al., 2020 (arXiv:2008.13367),
            equation 2, as Zhao et al., RT-DETR, 2023 (arXiv:2304.08069), section 4.3 use it.
            Departs from them in the crowds.
        """
        targets = _Targets.of(outputs, batch)
        layers = [*outputs.earlier, outputs]
        costs = [self._costs(layer, targets) for layer in layers]
        # All layers at once: the costs leave the device one time.
        labels = targets.labels.repeat(len(layers), 1)
        queries = match(torch.cat(costs), labels).chunk(len(layers))
        parts = [
            self._of_layer(layer, targets, own) for layer, own in zip(layers, queries, strict=True)
        ]
        boxes = targets.count
        # The count is that of one layer: the terms of layers are added, not averaged.
        return Loss(
            {
                "class": Term(_sum(parts, 0), parts[-1][1], self.class_weight),
                "box": Term(_sum(parts, 2), boxes, self.box_weight),
                "giou": Term(_sum(parts, 3), boxes, self.giou_weight),
            },
            {"boxes_without_query": boxes - (queries[-1] != UNMATCHED).sum()},
        )

    def _costs(self, layer: SetDetections, targets: _Targets) -> Tensor:
        """Return (B, Q, K)."""
        with torch.no_grad():
            probabilities = layer.probabilities()
            if layer.nothing:
                weight = _SOFTMAX_COST
                costs = class_costs(probabilities, targets.labels)
            else:
                weight = _SIGMOID_COST
                costs = focal_class_costs(probabilities, targets.labels, _COST_ALPHA, _COST_GAMMA)
            if self.class_cost is not None:
                weight = self.class_cost
            place = match_costs(
                widen(layer.boxes),
                targets.boxes,
                targets.sizes,
                box_cost=self.box_cost,
                giou_cost=self.giou_cost,
            )
            return weight * costs + place

    def _of_layer(
        self, layer: SetDetections, targets: _Targets, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the sum and the count of the class term, and the sums of the two others."""
        picture, box = (queries != UNMATCHED).nonzero(as_tuple=True)  # (M,) each
        query = queries[picture, box]
        found = widen(layer.boxes)[picture, query]
        wanted = targets.boxes[picture, box]
        unit = targets.sizes[picture]
        distances = (to_centres(found, unit) - to_centres(wanted, unit)).abs().sum()
        apart = (1 - generalized_overlap(found, wanted)).sum()
        logits = widen(layer.logits)
        labels = targets.labels.new_full(logits.shape[:2], IGNORED)
        labels[picture, query] = targets.labels[picture, box]
        # What is in a crowd may well be right: nobody told its things apart.
        counted = (labels != IGNORED) | ~targets.in_a_crowd(layer.boxes)
        if layer.nothing:
            total, count = self._softmax(logits, labels, counted)
            return total, count, distances, apart
        wish = torch.ones_like(query, dtype=torch.float32)
        if self.objective == "varifocal":
            wish = overlap(found.detach(), wanted)
        total = self._sigmoid(logits, (picture, query), labels[picture, query], wish, counted)
        return total, targets.count, distances, apart

    def _softmax(self, logits: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy and the weights, each summed over the queries that count."""
        nothing = logits.shape[-1] - 1
        each = F.cross_entropy(
            logits.flatten(0, 1),
            labels.masked_fill(labels == IGNORED, nothing).flatten(),
            reduction="none",
        )
        weights = torch.where(labels == IGNORED, self.nothing_weight, 1.0) * counted
        return (each * weights.flatten()).sum(), weights.sum()

    def _sigmoid(
        self,
        logits: Tensor,
        place: tuple[Tensor, Tensor],
        labels: Tensor,
        wish: Tensor,
        counted: Tensor,
    ) -> Tensor:
        """Return the loss of each class by itself, summed over classes and queries that count.

        Args:
            logits: (B, Q, C).
            place: Picture and query of each pair, (M,) each.
            labels: (M,) the class of its box.
            wish: (M,) the probability that is asked for.
            counted: (B, Q).
        """
        # Of all other classes and queries 0 is asked.
        target = torch.zeros_like(logits)
        target[*place, labels] = wish.to(target.dtype)
        is_class = torch.zeros_like(logits, dtype=torch.bool)
        is_class[*place, labels] = True
        probability = logits.detach().sigmoid()
        if self.objective == "varifocal":
            weight = torch.where(is_class, target, self.alpha * probability**self.gamma)
            each = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        else:
            # The modulating factor has a gradient of its own, as in the paper.
            probability = logits.sigmoid()
            missing = torch.where(is_class, 1 - probability, probability)
            weight = torch.where(is_class, 1 - self.alpha, self.alpha)
            each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            each = weight * missing**self.gamma * each
        return (each * counted[..., None]).sum()


@dataclass(frozen=True)
class _Targets:
    """The boxes of a batch as the loss reads them.

    Attributes:
        boxes: (B, K, 4) in pixels.
        labels: (B, K), ``IGNORED`` for crowds too: no query is to find one.
        crowds: (B, K).
        sizes: (B, 2) width and height of the pictures.
        count: () how many boxes there are.
    """

    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    sizes: Tensor
    count: Tensor

    @classmethod
    def of(cls, outputs: SetDetections, batch: Batch) -> _Targets:
        """Return those of a batch."""
        sizes = outputs.sizes
        if sizes is None:
            height, width = batch["inputs"].shape[-2:]
            sizes = batch["boxes"].new_tensor([width, height]).expand(len(batch["boxes"]), 2)
        # A run in float64 has boxes of the data in float32.
        boxes = batch["boxes"].to(widen(outputs.boxes).dtype)
        sizes = sizes.to(boxes.dtype)
        crowds = batch["crowd"] & (batch["labels"] != IGNORED)
        labels = batch["labels"].masked_fill(crowds, IGNORED)
        count = (labels != IGNORED).sum().float()
        return cls(boxes, labels, crowds, sizes, count)

    def in_a_crowd(self, boxes: Tensor) -> Tensor:
        """Return which of boxes (B, Q, 4) are mostly inside one crowd region, (B, Q)."""
        boxes = widen(boxes.detach())
        if not self.crowds.any():
            return boxes.new_zeros(boxes.shape[:2], dtype=torch.bool)
        both = intersections(boxes[:, :, None], self.boxes[:, None])
        inside = both > _IN_A_CROWD * areas(boxes)[:, :, None]
        return (inside & self.crowds[:, None]).any(-1)


def _sum(parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], place: int) -> Tensor:
    return torch.stack([part[place] for part in parts]).sum()
