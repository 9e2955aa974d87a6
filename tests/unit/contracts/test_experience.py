"""Rows that weights make: how long they are kept, in what order they come, and where they end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from groundup.contracts.data import DataContext, Refillable
from groundup.contracts.experience import ExperienceStream
from groundup.core.errors import RecipeError
from groundup.core.values import Batch


class Numbered(ExperienceStream):
    """Rows with the step that made them and a number; ``count`` at a time."""

    def __init__(self, context: DataContext, every: int, capacity: int, count: int) -> None:
        super().__init__(context, every, capacity)
        self.count = count

    @property
    def samples_per_epoch(self) -> int:
        return self.count

    def make(self, model: nn.Module, step: int) -> Batch:
        self.cursor["calls"] = self.cursor.get("calls", 0) + 1
        numbers = torch.arange(self.count)
        return {"step": torch.full((self.count,), step), "number": numbers}


def context(folder: Path, **changes: Any) -> DataContext:
    def encode(examples: Sequence[Any]) -> Any:
        raise NotImplementedError

    given: dict[str, Any] = {"split": "train", "batch_size": 4, "micro_batch_size": 2, "seed": 3}
    given |= {"encode": encode, "encode_key": "", "end_id": 0, "sequence_length": 0}
    return DataContext(**{**given, **changes}, cache=folder)


def steps_of(stream: ExperienceStream, steps: range, micro_batches: int) -> list[list[Any]]:
    """Return (step that made it, number) of the rows of each step."""
    found = []
    for step in steps:
        stream.refill(nn.Identity(), step)
        batches = [next(stream) for _ in range(micro_batches)]
        rows = [torch.stack((each["step"], each["number"]), 1).tolist() for each in batches]
        found.append([tuple(row) for batch in rows for row in batch])
    return found


def test_rows_serve_for_their_steps_each_once_a_pass(tmp_path: Path) -> None:
    stream = Numbered(context(tmp_path), every=3, capacity=0, count=6)
    assert isinstance(stream, Refillable)
    found = steps_of(stream, range(6), 2)
    # Three steps of four are two passes over six rows.
    first = [row for step in found[:3] for row in step]
    assert [step for step, _ in first] == [0] * 12
    assert sorted(first[:6]) == sorted(first[6:]) == [(0, n) for n in range(6)]
    assert first[:6] != first[6:]
    assert {step for step, _ in found[3]} == {3}
    assert stream.cursor == {"calls": 2}


def test_the_newest_rows_are_kept(tmp_path: Path) -> None:
    stream = Numbered(context(tmp_path), every=1, capacity=10, count=4)
    steps_of(stream, range(4), 2)
    assert stream.buffer()["step"].tolist() == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_micro_batches_and_processes_share_the_rows(tmp_path: Path) -> None:
    whole = steps_of(Numbered(context(tmp_path, micro_batch_size=4), 2, 0, 6), range(4), 1)
    assert steps_of(Numbered(context(tmp_path, micro_batch_size=1), 2, 0, 6), range(4), 4) == whole
    shares = [
        steps_of(
            Numbered(context(tmp_path, micro_batch_size=1, world=2, rank=rank), 2, 0, 6),
            range(4),
            2,
        )
        for rank in (0, 1)
    ]
    for step, one, other in zip(whole, *shares, strict=True):
        assert [one[0], other[0], one[1], other[1]] == step


def test_held_out_rows_come_once_and_are_made_anew(tmp_path: Path) -> None:
    stream = Numbered(context(tmp_path, split="validation", batch_size=4), 5, 99, 5)
    assert stream.seed == -1
    for step in (0, 1):
        stream.load_state_dict({"samples": 0})
        stream.refill(nn.Identity(), step)
        found = [each["number"].tolist() for each in stream]
        assert found == [[0, 1], [2, 3], [4]]
        assert stream.buffer()["step"].tolist() == [step] * 5


def test_a_batch_must_be_shared_out_evenly(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"batch size: 4 is not a multiple of micro-batch 3"):
        Numbered(context(tmp_path, micro_batch_size=3), 1, 1, 1)
