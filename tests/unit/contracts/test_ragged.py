"""Any number of targets an example, in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.contracts.data import DataContext, Refillable
from groundup.contracts.ragged import pack_ragged, ragged_rows, take_rows
from groundup.data.stream.in_memory import open_indexed_stream

BOXES = [torch.full((count, 4), float(count)) for count in (2, 0, 3)]


def test_what_is_packed_comes_back() -> None:
    batch = pack_ragged("boxes", BOXES)
    assert batch["boxes"].shape == (5, 4)
    assert batch["boxes_offsets"].tolist() == [0, 2, 2, 5]
    assert batch["boxes_offsets"].dtype == torch.int64
    for found, own in zip(ragged_rows(batch, "boxes"), BOXES, strict=True):
        assert torch.equal(found, own)


def test_examples_are_taken_with_all_their_targets() -> None:
    batch = pack_ragged("boxes", BOXES) | {"inputs": torch.arange(3)}
    taken = take_rows(batch, torch.tensor([2, 0, 2]))
    assert taken["inputs"].tolist() == [2, 0, 2]
    assert [len(rows) for rows in ragged_rows(taken, "boxes")] == [3, 2, 3]
    assert take_rows(batch, torch.tensor([1]))["boxes"].shape == (0, 4)


def test_a_stream_in_memory_keeps_them_together(tmp_path: object) -> None:
    def encode(examples: object) -> dict[str, Tensor]:
        return pack_ragged("boxes", BOXES) | {"inputs": torch.tensor([2, 0, 3])}

    context = DataContext("train", encode, "", 0, 0, 2, 2, 0, tmp_path)  # type: ignore[arg-type]
    stream = open_indexed_stream(["a", "b", "c"], context)
    for _ in range(3):
        batch = next(stream)
        counts = [len(rows) for rows in ragged_rows(batch, "boxes")]
        assert counts == batch["inputs"].tolist()


def test_a_stream_says_that_it_is_refilled() -> None:
    class SelfPlay:
        def refill(self, model: object, step: int) -> None: ...

        def buffer(self) -> dict[str, object]: ...

        def load_buffer(self, tensors: dict[str, object]) -> None: ...

    assert isinstance(SelfPlay(), Refillable)
    assert not isinstance(object(), Refillable)
