"""Set prediction: which query finds which box, and what its loss counts."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.contracts.detection import SetDetections
from groundup.core.errors import MissingExtraError
from groundup.core.values import IGNORED, Batch, Loss
from groundup.nn.box_head import from_centres, inverse_sigmoid, to_centres
from groundup.tasks.detect.matching import UNMATCHED, match
from groundup.tasks.detect.set_loss import SetLoss
from groundup.tasks.detect.task import Detect

SIDE = 32


def batch_of(boxes: list[list[list[float]]], labels: list[list[int]]) -> Batch:
    most = max(1, *map(len, labels))
    found = torch.zeros(len(boxes), most, 4)
    numbers = torch.full((len(boxes), most), IGNORED)
    for row, (own, classes) in enumerate(zip(boxes, labels, strict=True)):
        if own:
            found[row, : len(own)] = torch.tensor(own)
            numbers[row, : len(own)] = torch.tensor(classes)
    return {
        "inputs": torch.zeros(len(boxes), 1, SIDE, SIDE),
        "boxes": found,
        "labels": numbers,
        "crowd": torch.zeros(numbers.shape, dtype=torch.bool),
    }


def random_outputs(pictures: int, queries: int, outputs: int, **more: Any) -> SetDetections:
    corner = torch.rand(pictures, queries, 2) * SIDE / 2
    boxes = torch.cat((corner, corner + 1 + torch.rand(pictures, queries, 2) * SIDE / 2), -1)
    logits = torch.randn(pictures, queries, outputs)
    return SetDetections(logits.requires_grad_(), boxes.requires_grad_(), **more)


def total(loss: Loss) -> Tensor:
    return torch.stack([term.weight * term.total for term in loss.terms.values()]).sum()


def test_matching_has_the_least_cost_of_all() -> None:
    torch.manual_seed(0)
    costs = torch.randn(5, 4, 3)
    labels = torch.zeros(5, 3, dtype=torch.int64)
    labels[1, 1] = IGNORED
    labels[2] = IGNORED
    found = match(costs, labels)
    assert found[1, 1] == UNMATCHED
    assert found[2].tolist() == [UNMATCHED] * 3
    for row in (0, 3, 4):
        chosen = sum(float(costs[row, found[row, box], box]) for box in range(3))
        least = min(
            sum(float(costs[row, query, box]) for box, query in enumerate(order))
            for order in itertools.permutations(range(4), 3)
        )
        assert chosen == pytest.approx(least, abs=1e-5)
        assert len(set(found[row].tolist())) == 3


def test_what_is_not_finite_is_matched_last() -> None:
    costs = torch.tensor([[[float("nan")], [5.0], [float("inf")]]])
    assert match(costs, torch.zeros(1, 1, dtype=torch.int64)).tolist() == [[1]]
    nothing = torch.full((1, 3, 1), float("nan"))
    assert match(nothing, torch.zeros(1, 1, dtype=torch.int64)).item() != UNMATCHED


@pytest.mark.parametrize("nothing", [False, True])
def test_a_picture_without_boxes_teaches_that_nothing_is_there(nothing: bool) -> None:
    torch.manual_seed(0)
    outputs = random_outputs(2, 5, 3, nothing=nothing)
    loss = SetLoss()(outputs, batch_of([[], []], [[], []]))
    assert loss.terms["box"].total.item() == 0
    assert loss.terms["box"].count.item() == 0
    loss.terms["class"].total.backward()  # type: ignore[no-untyped-call]
    assert outputs.logits.grad is not None
    if nothing:
        assert (outputs.logits.grad[..., -1] < 0).all()
    else:
        assert (outputs.logits.grad > 0).all()


def test_a_loss_is_the_sum_over_its_pictures() -> None:
    torch.manual_seed(0)
    outputs = random_outputs(3, 6, 4)
    boxes = [[[1.0, 2, 9, 9], [3, 3, 20, 30]], [], [[5, 5, 6, 8]]]
    batch = batch_of(boxes, [[0, 3], [], [2]])
    whole = SetLoss()(outputs, batch)
    parts = [
        SetLoss()(
            SetDetections(outputs.logits[row : row + 1], outputs.boxes[row : row + 1]),
            {name: value[row : row + 1] for name, value in batch.items()},
        )
        for row in range(3)
    ]
    for name, term in whole.terms.items():
        together = torch.stack([part.terms[name].total for part in parts]).sum()
        torch.testing.assert_close(term.total, together, rtol=1e-5, atol=1e-5)
        counts = sum(part.terms[name].count.item() for part in parts)
        assert term.count.item() == counts == 3


def test_earlier_layers_are_matched_by_themselves_and_added() -> None:
    torch.manual_seed(0)
    layers = [random_outputs(2, 6, 4) for _ in range(3)]
    batch = batch_of([[[1.0, 2, 9, 9]], [[3, 3, 20, 30], [0, 0, 4, 4]]], [[1], [0, 3]])
    last = SetDetections(layers[-1].logits, layers[-1].boxes, tuple(layers[:-1]))
    whole = SetLoss()(last, batch)
    alone = torch.stack([total(SetLoss()(layer, batch)) for layer in layers]).sum()
    torch.testing.assert_close(total(whole), alone, rtol=1e-5, atol=1e-5)
    assert whole.terms["box"].count.item() == 3


def test_crowds_are_neither_found_nor_wrong() -> None:
    torch.manual_seed(0)
    outputs = random_outputs(1, 3, 2)
    with torch.no_grad():
        outputs.boxes[0] = torch.tensor([[2.0, 2, 6, 6], [20, 20, 30, 30], [12, 2, 20, 6]])
    batch = batch_of([[[0.0, 0, 16, 16], [20, 20, 31, 30]]], [[1, 0]])
    batch["crowd"][0, 0] = True
    loss = SetLoss()(outputs, batch)
    assert loss.terms["box"].count.item() == 1
    assert loss.metrics["boxes_without_query"].item() == 0
    loss.terms["class"].total.backward()  # type: ignore[no-untyped-call]
    assert outputs.logits.grad is not None
    # The first box is inside the crowd, the third by half of its area only.
    assert (outputs.logits.grad[0, 0] == 0).all()
    assert (outputs.logits.grad[0, 1:] != 0).all()


def test_more_boxes_than_queries_are_counted() -> None:
    torch.manual_seed(0)
    batch = batch_of([[[0.0, 0, 3 + n, 4] for n in range(5)]], [[0] * 5])
    loss = SetLoss()(random_outputs(1, 2, 3), batch)
    assert loss.metrics["boxes_without_query"].item() == 3
    assert torch.isfinite(total(loss))
    sums = {name: (term.total.item(), term.count.item()) for name, term in loss.terms.items()}
    assert "boxes_without_query" not in Detect().summarise(sums)
    sums["boxes_without_query"] = (3.0, 1.0)
    assert Detect().summarise(sums)["boxes_without_query"] == 3.0


def test_distances_are_in_shares_of_a_picture_without_what_pads_it() -> None:
    outputs = random_outputs(1, 1, 1)
    batch = batch_of([[[0.0, 0, 8, 8]]], [[0]])
    with torch.no_grad():
        outputs.boxes[0, 0] = torch.tensor([2.0, 0, 10, 8])
    whole = SetLoss()(outputs, batch).terms["box"].total
    half = SetDetections(outputs.logits, outputs.boxes, sizes=torch.tensor([[SIDE / 2, SIDE]]))
    assert whole.item() == pytest.approx(2 / SIDE)
    assert SetLoss()(half, batch).terms["box"].total.item() == pytest.approx(4 / SIDE)


DIFFERENT: dict[str, Any] = {
    "objective": "focal",
    "class_cost": 60.0,
    "box_cost": 100.0,
    "giou_cost": 30.0,
    "class_weight": 2.0,
    "box_weight": 1.0,
    "giou_weight": 1.0,
    "nothing_weight": 0.5,
    "alpha": 0.5,
    "gamma": 1.0,
}


def test_every_setting_changes_the_loss() -> None:
    assert set(DIFFERENT) == set(SetLoss.model_fields)
    torch.manual_seed(0)
    boxes = [[[1.0, 2, 9, 9], [3, 3, 20, 30], [8, 9, 20, 22]] for _ in range(8)]
    batch = batch_of(boxes, [[0, 1, 2]] * 8)
    for name, value in DIFFERENT.items():
        outputs = random_outputs(8, 12, 4, nothing=name == "nothing_weight")
        before = total(SetLoss()(outputs, batch))
        assert total(SetLoss(**{name: value})(outputs, batch)) != before, name


def test_centres_are_there_and_back() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[40.0, 30.0]])
    boxes = torch.rand(5, 4) * 10
    boxes[:, 2:] += boxes[:, :2]
    torch.testing.assert_close(from_centres(to_centres(boxes, sizes), sizes), boxes)
    moved = from_centres(to_centres(boxes, sizes), sizes, torch.tensor([[3.0, 5.0]]))
    torch.testing.assert_close(moved - boxes, torch.tensor([[3.0, 5, 3, 5]]).expand(5, 4))
    shares = torch.tensor([0.0, 0.25, 1.0])
    assert torch.isfinite(inverse_sigmoid(shares)).all()
    torch.testing.assert_close(inverse_sigmoid(shares).sigmoid(), shares, rtol=0, atol=2e-5)


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'groundup\[detect\]'"):
        match(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64))
