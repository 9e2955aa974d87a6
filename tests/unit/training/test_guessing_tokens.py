"""What validations of language models are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from groundup.core.values import Batch, Loss, Term
from groundup.tasks.classify.task import Classify
from groundup.tasks.language_modeling import LanguageModeling
from groundup.training.accumulation import Objective, compare_with_guessing


class Plain:
    name = "plain"

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        return None

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        return Loss({"next_token": Term(torch.tensor(1.0), torch.tensor(1.0))})

    def counts(self, batch: Batch) -> dict[str, float] | None:
        return None


def _training(samples: int) -> Iterator[Batch]:
    yield {"targets": torch.tensor([[0, 0, 0, 2], [-100, 0, 2, 2]])}


def test_tokens_cost_what_their_share_of_the_training_split_says() -> None:
    task = LanguageModeling()
    compared: Objective = compare_with_guessing(Plain(), task, _training)
    batch = {"targets": torch.tensor([[0, 2, -100, 1, 9]])}
    guess = float(compared(None, batch).metrics["guess"])
    # Half a token for each that never came: the one between, and all that are larger.
    assert guess == pytest.approx(-sum(math.log(n / 8) for n in (4, 3, 0.5, 0.5)))
    sums = {"next_token": (8.0, 4.0), "guess": (guess, 1.0)}
    assert task.summarise(sums)["baseline_loss"] == pytest.approx(guess / 4)


def test_other_tasks_compare_themselves() -> None:
    plain = Plain()
    assert compare_with_guessing(plain, Classify(), _training) is plain
