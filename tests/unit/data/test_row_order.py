"""Batches of rows of similar lengths: every row once an epoch, little padding, and an order that
depends on the sample's number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from groundup.contracts.data import DataContext
from groundup.contracts.ragged import pack_ragged
from groundup.core.values import Example, Split
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import KeyedOrder, LengthOrder, OwnOrder

N, B = 1003, 16
LENGTHS = np.random.default_rng(0).lognormal(3, 0.7, N).astype(np.int64) + 1


def order_of(seed: int = 1, split: Split = "train") -> LengthOrder:
    return LengthOrder(LENGTHS[:, None], B, split, seed)


def padding_of(rows: NDArray[np.int64], lengths: NDArray[np.int64] = LENGTHS) -> float:
    """Return the share of all batches that is padding."""
    batches = [lengths[rows[begin : begin + B]] for begin in range(0, len(rows), B)]
    return 1 - sum(b.sum() for b in batches) / sum(b.max() * len(b) for b in batches)


def test_every_row_comes_once_an_epoch_and_epochs_differ() -> None:
    order = order_of()
    epochs = [order.rows(epoch * N, N) for epoch in range(4)]
    for rows in epochs:
        assert np.array_equal(np.sort(rows), np.arange(N))
    assert len({rows.tobytes() for rows in epochs}) == 4
    assert not np.array_equal(epochs[0], order_of(seed=2).rows(0, N))
    # From any number on, and over the end of an epoch.
    run = np.concatenate(epochs)
    for first, count in ((0, 5), (700, 20), (N - 3, 10), (2 * N - 1, N + 2)):
        assert np.array_equal(order_of().rows(first, count), run[first : first + count])


def test_batches_have_little_padding_in_every_epoch() -> None:
    order = order_of()
    run = order.rows(0, 5 * N // B * B)
    assert padding_of(run) < 0.08 < 0.5 < padding_of(KeyedOrder(N, 1).rows(0, len(run)))
    # Short and long batches come in turn, not one after the other: the first half is as long.
    assert LENGTHS[run[: N // 2]].mean() == pytest.approx(LENGTHS.mean(), rel=0.25)


def test_two_lengths_are_both_similar_in_a_batch() -> None:
    draws = np.random.default_rng(1)
    size = 20_000
    source = draws.lognormal(3, 0.7, size)
    both = np.stack((source * draws.lognormal(0, 0.3, size) * 0.8, source), 1).astype(np.int64) + 1
    rows = LengthOrder(both, B, "train", 0).rows(0, size)
    assert np.array_equal(np.sort(rows), np.arange(size))
    assert max(padding_of(rows, lengths) for lengths in both.T) < 0.13
    assert padding_of(LengthOrder(both[:, 1:], B, "train", 0).rows(0, size), both[:, 0]) > 0.3


def test_held_out_rows_come_once_whatever_the_seed() -> None:
    rows = order_of(split="validation").rows(0, 2 * N)
    assert np.array_equal(np.sort(rows), np.arange(N))
    assert np.array_equal(rows, order_of(7, "validation").rows(0, N))
    assert len(order_of(split="test").rows(N + B, B)) == 0
    assert padding_of(rows) < 0.1
    assert OwnOrder(5).rows(3, 4).tolist() == [3, 4]


@pytest.mark.parametrize("size", [1, 3, B, B + 1])
def test_fewer_rows_than_a_batch(size: int) -> None:
    order = LengthOrder(np.ones((size, 2), np.int64), B, "train", 0)
    found = order.rows(0, 6 * size)
    assert np.bincount(found).tolist() == [6] * size


@pytest.mark.parametrize(("micro", "world"), [(16, 1), (4, 1), (4, 2)])
def test_streams_read_the_lengths_off_the_batch(micro: int, world: int, tmp_path: Path) -> None:
    sizes = LENGTHS[:200].tolist()
    examples = [Example(str(n), n) for n in range(len(sizes))]

    def encode(some: list[Example]) -> dict[str, torch.Tensor]:
        rows = [torch.full((sizes[e.inputs],), e.inputs) for e in some]
        return {"rows": torch.tensor([e.inputs for e in some]), **pack_ragged("source", rows)}

    found: dict[int, list[int]] = {}
    for rank in range(world):
        context = DataContext(
            **{"split": "train", "encode": encode, "encode_key": "", "end_id": 0},
            **{"sequence_length": 0, "batch_size": B, "micro_batch_size": micro, "seed": 3},
            **{"cache": tmp_path, "rank": rank, "world": world},
        )
        stream = open_indexed_stream(examples, context, similar_lengths=True)
        for number in range(2 * B // micro // world):
            batch = next(stream)
            own = batch["rows"].tolist()
            found[number * world + rank] = own
            assert batch["source"].tolist() == [n for n in own for _ in range(sizes[n])]
    samples = [row for number in sorted(found) for row in found[number]]
    assert samples == LengthOrder(LENGTHS[:200, None], B, "train", 3).rows(0, 2 * B).tolist()
