"""What a detector finds: boxes of points and queries, brought back to the stored picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.nn.box_distances import decode_distances, distances_to
from groundup.nn.box_overlap import overlap
from groundup.tasks.detect.detections import Choice, find, suppress

WHOLE = torch.tensor([[1.0, 1.0, 0.0, 0.0]])


def one_by_one(boxes: Tensor, labels: Tensor, kept: Tensor, most: float) -> list[bool]:
    """Non-maximum suppression as it is written in books."""
    left = kept.clone()
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            if left[i] and labels[i] == labels[j] and overlap(boxes[i], boxes[j]) > most:
                left[j] = False
    return left.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_that_of_one_box_after_the_other(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    corner = torch.rand(3, 40, 2, generator=draws) * 20
    boxes = torch.cat((corner, corner + 5 + torch.rand(3, 40, 2, generator=draws) * 20), 2)
    labels = torch.randint(2, (3, 40), generator=draws)
    kept = torch.rand(3, 40, generator=draws) < 0.9
    found = suppress(boxes, labels, kept, 0.4)
    for row in range(3):
        assert found[row].tolist() == one_by_one(boxes[row], labels[row], kept[row], 0.4)


def test_distances_there_and_back() -> None:
    points = torch.tensor([[20.0, 24.0], [40.0, 40.0]])
    strides = torch.tensor([8.0, 16.0])
    boxes = torch.tensor([[4.0, 8.0, 44.0, 30.0], [10.0, 20.0, 90.0, 70.0]])
    distances = distances_to(boxes, points, strides)
    torch.testing.assert_close(decode_distances(distances[..., None], points, strides), boxes)
    # A distribution of which two bins share the distance.
    logits = torch.full((2, 4, 8), -1e4)
    below = distances.floor().long()
    share = (distances - below).clamp(1e-6, 1 - 1e-6)
    logits.scatter_(2, below[..., None], (1 - share).log()[..., None])
    logits.scatter_(2, below[..., None] + 1, share.log()[..., None])
    torch.testing.assert_close(
        decode_distances(logits, points, strides), boxes, rtol=1e-4, atol=1e-3
    )


def dense(probabilities: list[list[float]], distances: list[float]) -> DenseDetections:
    return DenseDetections(
        torch.tensor([probabilities]).logit(),
        torch.tensor([[[each] * 4 for each in distances]])[..., None],
        torch.tensor([[16.0, 16.0], [17.0, 16.0], [48.0, 48.0]]),
        torch.tensor([8.0, 8.0, 8.0]),
    )


def test_points_find_each_thing_once() -> None:
    outputs = dense([[0.9, 0.1], [0.8, 0.5], [0.1, 0.6]], [1.0, 1.0, 2.0])
    (found,) = find(outputs, WHOLE, (64, 64), Choice(0.4, 10, 0.5))
    # The second point saw the first class at nearly the same place.
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert found.boxes.tolist() == [[8, 8, 24, 24], [32, 32, 64, 64], [9, 8, 25, 24]]
    (fewer,) = find(outputs, WHOLE, (64, 64), Choice(0.4, 1, 0.5))
    assert fewer.labels.tolist() == [0]


def test_queries_keep_what_overlaps() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]]])
    logits = torch.tensor([[[3.0, -9.0], [2.0, -9.0]]])
    (found,) = find(SetDetections(logits, boxes), WHOLE, (64, 64), Choice(0.3, 10, 0.5))
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0]).sigmoid().tolist())
    nothing = SetDetections(torch.tensor([[[5.0, 0.0], [0.0, 5.0]]]), boxes, nothing=True)
    (found,) = find(nothing, WHOLE, (64, 64), Choice(0.3, 10, 0.5))
    assert found.labels.tolist() == [0]


def test_boxes_come_back_to_the_stored_picture() -> None:
    """A picture of 40 x 20 was made twice as large, with bars of 12 pixels above and below."""
    frame = torch.tensor([[2.0, 2.0, 0.0, 12.0]])
    outputs = SetDetections(
        torch.tensor([[[9.0], [8.0]]]),
        torch.tensor([[[10.0, 22.0, 30.0, 42.0], [-5.0, 0.0, 80.0, 64.0]]]),
    )
    (found,) = find(outputs, frame, (64, 80), Choice(0.3, 10, 0.5))
    assert found.boxes.tolist() == [[5, 5, 15, 15], [0, 0, 40, 20]]
