"""The loss of set prediction against transformers' losses of DETR and RT-DETR, on random cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from later import Library
from torch import Tensor

from groundup.contracts.detection import SetDetections
from groundup.core.values import IGNORED, Batch, Loss
from groundup.tasks.detect.set_loss import SetLoss

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("transformers")]

transformers: Any = Library("transformers")

PICTURES, QUERIES, CLASSES, LAYERS = 4, 12, 5, 3
WIDTH, HEIGHT = 80, 50


def random_case(seed: int, *, nothing: bool) -> tuple[list[Tensor], list[Tensor], Batch]:
    """Return the logits and the boxes (centre, width, height, in shares) of each layer, and a batch;
    one picture has no boxes, and others more or fewer."""
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(LAYERS, PICTURES, QUERIES, CLASSES + nothing, generator=draws) * 2
    boxes = torch.rand(LAYERS, PICTURES, QUERIES, 4, generator=draws) * 0.4 + 0.05
    wanted = torch.rand(PICTURES, 6, 4, generator=draws) * 0.4 + 0.05
    labels = torch.randint(CLASSES, (PICTURES, 6), generator=draws)
    for picture, count in enumerate((0, 6, 3, 1)):
        labels[picture, count:] = IGNORED
    pixels = corners(wanted) * (labels != IGNORED)[..., None]
    batch = {
        "inputs": torch.zeros(PICTURES, 3, HEIGHT, WIDTH),
        "boxes": pixels,
        "labels": labels,
        "crowd": torch.zeros(PICTURES, 6, dtype=torch.bool),
        "centres": wanted,
    }
    return list(logits.requires_grad_()), list(boxes.requires_grad_()), batch


def corners(boxes: Tensor) -> Tensor:
    middle, sides = boxes[..., :2], boxes[..., 2:]
    both = torch.cat((middle - sides / 2, middle + sides / 2), -1)
    return both * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])


def in_their_words(batch: Batch) -> list[dict[str, Tensor]]:
    return [
        {"class_labels": labels[labels != IGNORED], "boxes": boxes[labels != IGNORED]}
        for labels, boxes in zip(batch["labels"], batch["centres"], strict=True)
    ]


def our_loss(logits: list[Tensor], boxes: list[Tensor], batch: Batch, loss: SetLoss) -> Loss:
    nothing = logits[0].shape[-1] > CLASSES
    *earlier, last = (
        SetDetections(one, corners(two), nothing=nothing)
        for one, two in zip(logits, boxes, strict=True)
    )
    outputs = SetDetections(last.logits, last.boxes, tuple(earlier), nothing)
    return loss(outputs, batch)


def total(loss: Loss) -> Tensor:
    return torch.stack(
        [term.weight * term.total / term.count for term in loss.terms.values()]
    ).sum()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_losses_and_gradients_are_those_of_transformers(kind: str, seed: int) -> None:
    logits, boxes, batch = random_case(seed, nothing=kind == "detr")
    labels = in_their_words(batch)
    stacked = torch.stack(logits), torch.stack(boxes)
    if kind == "detr":
        from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

        config = transformers.DetrConfig(
            use_timm_backbone=False,
            backbone_config=transformers.ResNetConfig(),
            num_labels=CLASSES,
            auxiliary_loss=True,
        )
        expected, parts, _ = ForObjectDetectionLoss(
            logits[-1], labels, "cpu", boxes[-1], config, *stacked
        )
    else:
        from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

        config = transformers.RTDetrConfig(num_labels=CLASSES)
        # What it calls the encoder's best is the first of our layers.
        expected, parts, _ = RTDetrForObjectDetectionLoss(
            logits[-1],
            labels,
            "cpu",
            boxes[-1],
            config,
            *(each[1:].transpose(0, 1) for each in stacked),
            logits[0],
            boxes[0],
        )
    found = our_loss(logits, boxes, batch, SetLoss())
    own = total(found)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    theirs = sum(value for name, value in parts.items() if "giou" in name)
    giou = found.terms["giou"]
    scale = 1.0 if kind == "detr" else 2.0
    torch.testing.assert_close(giou.total / giou.count * scale, theirs, rtol=1e-5, atol=1e-5)
    wanted = torch.autograd.grad(expected, [*logits, *boxes])
    for one, other in zip(torch.autograd.grad(own, [*logits, *boxes]), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_focal_loss_is_that_of_transformers(seed: int) -> None:
    from transformers.loss.loss_for_object_detection import sigmoid_focal_loss

    logits, boxes, batch = random_case(seed, nothing=False)
    loss = SetLoss(objective="focal")
    found = our_loss(logits[-1:], boxes[-1:], batch, loss).terms["class"].total
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    labels = in_their_words(batch)
    matcher = RTDetrHungarianMatcher(transformers.RTDetrConfig(num_labels=CLASSES))
    pairs = matcher({"logits": logits[-1], "pred_boxes": boxes[-1]}, labels)
    target = torch.zeros_like(logits[-1])
    for picture, (queries, own) in enumerate(pairs):
        target[picture, queries, labels[picture]["class_labels"][own]] = 1.0
    expected = sigmoid_focal_loss(logits[-1], target, 1, alpha=0.25, gamma=2.0) * QUERIES
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
