"""Which points are to find which box."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.tasks.detect.assignment import NO_BOX, Assignment, assign

POINTS = torch.tensor([[x + 4.0, y + 4.0] for y in range(0, 32, 8) for x in range(0, 32, 8)])


def given(found: Tensor, boxes: Tensor, chances: Tensor | None = None, **more: int) -> Assignment:
    if chances is None:
        chances = torch.full((1, len(POINTS), 2), 0.5)
    wanted = torch.ones(1, boxes.shape[1], dtype=torch.bool)
    labels = torch.zeros(1, boxes.shape[1], dtype=torch.int64)
    settings = {"candidates": 3, "alpha": 1.0, "beta": 6.0} | more
    return assign(chances, found, POINTS, boxes, labels, wanted, **settings)  # type: ignore[arg-type]


def around(size: float) -> Tensor:
    return torch.cat((POINTS - size, POINTS + size), 1)[None]


def test_the_best_points_inside_are_chosen() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 24.0, 24.0]]])
    found = around(4.0)
    found[0, 5] = boxes[0, 0]  # the point in the middle sees it whole
    found[0, 15] = boxes[0, 0]  # so does one that is outside
    result = given(found, boxes)
    assert (result.box != NO_BOX).sum() == 3
    assert result.box[0, 5] == 0
    assert result.score[0, 5] == 1.0
    assert result.box[0, 15] == NO_BOX
    # Less aligned ones are to be less sure: (64 / 576)^6 of the best one's.
    others = result.score[result.box == 0]
    assert others.min() == pytest.approx((64 / 576) ** 6, rel=1e-3)


def test_a_surer_point_is_preferred() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 32.0, 32.0]]])
    chances = torch.full((1, 16, 2), 0.1)
    chances[0, 9, 0] = 0.9
    chances[0, 3, 1] = 0.9  # of another class
    result = given(around(6.0), boxes, chances, candidates=1)
    assert result.box[0].tolist() == [NO_BOX] * 9 + [0] + [NO_BOX] * 6


def test_a_point_of_two_boxes_finds_the_one_it_overlaps_more() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 32.0, 32.0]]])
    found = around(4.0)
    found[0, 0] = boxes[0, 0]
    found[0, 5] = boxes[0, 1]
    result = given(found, boxes, candidates=16)
    assert result.box[0, 0] == 0
    assert result.box[0, 5] == 1
    assert result.score[0, 5] == 1.0


def test_a_box_between_the_points_is_found_by_the_nearest() -> None:
    boxes = torch.tensor([[[6.0, 5.0, 10.0, 9.0], [0.0, 0.0, 0.0, 0.0]]])
    wanted = torch.tensor([[True, False]])
    labels = torch.tensor([[0, -100]])
    chances = torch.full((1, 16, 2), 0.5)
    result = assign(
        chances, around(4.0), POINTS, boxes, labels, wanted, candidates=3, alpha=1.0, beta=6.0
    )
    assert (result.box == 0).sum() == 1
    assert result.box[0, :2].max() == 0


def test_a_picture_without_boxes() -> None:
    result = given(around(4.0), torch.zeros(1, 1, 4))
    nothing = assign(
        torch.full((1, 16, 2), 0.5),
        around(4.0),
        POINTS,
        torch.zeros(1, 1, 4),
        torch.tensor([[-100]]),
        torch.tensor([[False]]),
        candidates=3,
        alpha=1.0,
        beta=6.0,
    )
    assert (nothing.box == NO_BOX).all()
    assert (nothing.score == 0).all()
    assert result.box.shape == nothing.box.shape
