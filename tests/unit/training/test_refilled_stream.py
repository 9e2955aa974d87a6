"""A stream whose examples the current weights make: asked before every step, and before no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import tiny_run
from torch import nn

from groundup import api
from groundup.contracts.data import Stream
from groundup.core.values import Batch


class Refilled(Stream):
    """The batches of another stream, and what the trainer did before and between them."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.done: list[str] = []
        self.weights: list[float] = []

    def refill(self, model: nn.Module, step: int) -> None:
        assert not model.training
        assert not torch.is_grad_enabled()
        self.done.append(f"refill {step}")
        self.weights.append(float(next(model.parameters()).sum()))

    def buffer(self) -> dict[str, torch.Tensor]:
        return {}

    def load_buffer(self, tensors: dict[str, torch.Tensor]) -> None:
        assert not tensors

    def __next__(self) -> Batch:
        self.done.append("take")
        return next(self.stream)

    @property
    def samples_per_epoch(self) -> int:
        return self.stream.samples_per_epoch

    def state_dict(self) -> dict[str, Any]:
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream.load_state_dict(state)

    def close(self) -> None:
        self.stream.close()


@pytest.mark.slow
def test_it_is_refilled_before_every_step_by_the_weights_of_that_step(tmp_path: Path) -> None:
    recipe = tiny_run("mlp", tmp_path)
    changes = {"training.steps": 3, "machine.micro_batch_size": 8}
    trainer = api.trainer(recipe, changes, runs=tmp_path / "runs")
    stream = trainer.stream = Refilled(trainer.stream)
    for _ in trainer.steps():
        assert trainer.model.training
    trainer.close()
    assert stream.done == [
        *("refill 0", "take", "take"),
        *("refill 1", "take", "take"),
        *("refill 2", "take", "take"),
    ]
    assert len(set(stream.weights)) == 3


def test_other_streams_are_left_alone(tmp_path: Path) -> None:
    trainer = api.trainer(tiny_run("mlp", tmp_path), {"training.steps": 1}, runs=tmp_path / "runs")
    list(trainer.steps())
    trainer.close()
    assert trainer.step == 1
