"""The loss of detectors that look at points: a sum over pictures, 0 where everything is right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.contracts.detection import DenseDetections
from groundup.core.values import Batch
from groundup.nn.box_distances import distances_to
from groundup.tasks.detect.dense_loss import DenseLoss

POINTS = torch.tensor([[x + 4.0, y + 4.0] for y in range(0, 32, 8) for x in range(0, 32, 8)])
STRIDES = torch.full((16,), 8.0)


def batch_of(boxes: list[list[list[float]]], crowd: list[list[bool]] | None = None) -> Batch:
    most = max(map(len, boxes))
    batch = {
        "boxes": torch.zeros(len(boxes), most, 4),
        "labels": torch.full((len(boxes), most), -100),
        "crowd": torch.zeros(len(boxes), most, dtype=torch.bool),
    }
    for row, own in enumerate(boxes):
        for place, box in enumerate(own):
            batch["boxes"][row, place] = torch.tensor(box)
            batch["labels"][row, place] = place % 2
            batch["crowd"][row, place] = bool(crowd and crowd[row][place])
    return batch


def outputs_of(count: int, bins: int = 8) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 16, 2, generator=draws)
    distances = torch.randn(count, 16, 4, bins, generator=draws)
    return logits.requires_grad_(), distances.requires_grad_()


def of(logits: Tensor, distances: Tensor) -> DenseDetections:
    return DenseDetections(logits, distances, POINTS, STRIDES)


BOXES = [[[2.0, 3.0, 20.0, 28.0], [10.0, 8.0, 30.0, 20.0]], [], [[0.0, 0.0, 31.0, 31.0]]]


@pytest.mark.parametrize("bins", [1, 8])
def test_the_loss_is_a_sum_over_pictures(bins: int) -> None:
    logits, distances = outputs_of(3, bins)
    loss = DenseLoss()
    whole = loss(of(logits, distances.abs()), batch_of(BOXES)).terms["boxes"]
    assert whole.count == 3
    parts = [
        loss(of(logits[n : n + 1], distances[n : n + 1].abs()), batch_of(BOXES[n : n + 1]))
        for n in (0, 2)
    ]
    # Of the second picture, without boxes, there is the loss of classes alone.
    empty = {"boxes": torch.zeros(1, 1, 4), "labels": torch.tensor([[-100]])}
    parts.append(
        loss(of(logits[1:2], distances[1:2].abs()), empty | {"crowd": torch.tensor([[False]])})
    )
    totals = torch.stack([part.terms["boxes"].total for part in parts])
    torch.testing.assert_close(totals.sum(), whole.total)
    whole.total.backward()
    assert logits.grad is not None
    assert distances.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (distances.grad[1] == 0).all()
    assert distances.grad[0].abs().sum() > 0


def test_padding_changes_nothing() -> None:
    logits, distances = outputs_of(1)
    batch = batch_of(BOXES[:1])
    padded = {
        "boxes": torch.cat((batch["boxes"], torch.full((1, 3, 4), 7.0)), 1),
        "labels": torch.cat((batch["labels"], torch.full((1, 3), -100)), 1),
        "crowd": torch.cat((batch["crowd"], torch.zeros(1, 3, dtype=torch.bool)), 1),
    }
    one = DenseLoss()(of(logits, distances), batch).terms["boxes"]
    other = DenseLoss()(of(logits, distances), padded).terms["boxes"]
    assert one.total == other.total
    assert one.count == other.count == 2


def test_what_is_right_costs_nothing() -> None:
    box = torch.tensor([4.0, 4.0, 28.0, 28.0])
    wish = distances_to(box.expand(16, 4), POINTS, STRIDES).round().clamp(0, 7).long()
    distances = torch.full((1, 16, 4, 8), -50.0).scatter(3, wish[None, ..., None], 50.0)
    logits = torch.full((1, 16, 2), -50.0)
    inside = ((box[:2] < POINTS) & (box[2:] > POINTS)).all(1)
    logits[0, inside, 0] = 50.0
    found = DenseLoss(candidates=16)(of(logits, distances), batch_of([[box.tolist()]]))
    assert found.terms["boxes"].total < 1e-3
    logits[0, 0, 1] = 5.0  # a point that is sure of what is not there
    wrong = DenseLoss(candidates=16)(of(logits, distances), batch_of([[box.tolist()]]))
    assert wrong.terms["boxes"].total > 0.2


def test_points_in_a_crowd_are_left_alone() -> None:
    logits = torch.full((1, 16, 2), 3.0, requires_grad=True)
    distances = torch.zeros(1, 16, 4, 8)
    batch = batch_of([[[0.0, 0.0, 16.0, 32.0]]], [[True]])
    term = DenseLoss()(of(logits, distances), batch).terms["boxes"]
    assert term.count == 0
    term.total.backward()
    assert logits.grad is not None
    inside = POINTS[:, 0] < 16
    assert (logits.grad[0, inside] == 0).all()
    assert (logits.grad[0, ~inside] > 0).all()


def test_settings_weigh_the_parts() -> None:
    logits, distances = outputs_of(3)
    outputs = of(logits, distances)
    batch = batch_of(BOXES)
    parts = DenseLoss()(outputs, batch).metrics
    weighed = DenseLoss(class_weight=3.0, giou_weight=5.0, distribution_weight=7.0)
    total = weighed(outputs, batch).terms["boxes"].total
    wanted = 3 * parts["class"] + 5 * parts["giou"] + 7 * parts["distribution"]
    torch.testing.assert_close(total, wanted)
    assert DenseLoss(gamma=0.0)(outputs, batch).metrics["class"] > parts["class"]
