"""The loss of a linear SVM in place of the cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.tasks.classify.losses import squared_hinge
from groundup.tasks.classify.task import Classify

OUTPUTS = torch.tensor([[2.0, -1.5, 0.25], [0.0, -3.0, 1.0]])
LABELS = torch.tensor([0, 1])


def test_it_is_the_squared_distance_to_the_margin_of_each_class() -> None:
    # by hand: (0 + 0 + 1.25^2) and (1^2 + 4^2 + 2^2)
    assert squared_hinge(OUTPUTS, LABELS).tolist() == [1.5625, 21.0]


@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 0.5])])
def test_the_task_adds_it_up_and_states_the_cross_entropy_next_to_it(
    weights: Tensor | None,
) -> None:
    task = Classify(loss_function="squared_hinge")
    batch = {"labels": LABELS} | ({} if weights is None else {"weights": weights})
    with torch.no_grad():
        loss = task.loss(OUTPUTS, batch)
    expected = 22.5625 if weights is None else 13.625
    assert loss.terms["label"].total.item() == expected
    plain = torch.nn.functional.cross_entropy(OUTPUTS, LABELS, reduction="sum")
    assert loss.metrics["plain"].item() == pytest.approx(plain.item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing has no effect with loss_function"),
        ({"labels": "multi_label"}, 'loss_function has no effect with labels: "multi_label"'),
    ],
)
def test_settings_without_effect_next_to_it(settings: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(Classify, {"loss_function": "squared_hinge", **settings}, "recipe.task")
