"""The order of micro-batches is a function of the seed and the number of samples delivered, and of
nothing else."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.contracts.data import DataContext
from groundup.core.errors import CheckpointError
from groundup.core.values import Batch, Document, TokenSequence
from groundup.data.stream.packing import Packing, pieces_per_row
from groundup.data.stream.sample_stream import SampleStream
from groundup.data.stream.token_stream import open_token_stream

END, T = 0, 16
SIZES = [3, 60, 7, 15, 16, 17, 1, 40, 5, 28, 9, 90, 2, 11, 4]


def documents() -> list[Document]:
    return [Document(f"d{i}", chr(100 + i) * size) for i, size in enumerate(SIZES)]


def encode(examples: Sequence[Document]) -> list[TokenSequence]:
    return [
        TokenSequence(np.array([END, *(ord(c) for c in e.text), END], dtype=np.int32))
        for e in examples
    ]


def masked(examples: Sequence[Document]) -> list[TokenSequence]:
    return [TokenSequence(s.tokens, np.arange(len(s.tokens)) % 3 == 0) for s in encode(examples)]


@pytest.fixture
def context(tmp_path: Path) -> DataContext:
    return DataContext("train", encode, "e", END, T, 8, 2, 5, tmp_path)


def open_stream(context: DataContext, packing: Packing | None = None) -> SampleStream:
    return open_token_stream(documents, "source", context, packing or Packing())


def take(stream: SampleStream, count: int) -> list[Batch]:
    return [next(stream) for _ in range(count)]


def digest(batches: list[Batch]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for key in sorted(batch):
            found.update(batch[key].numpy().tobytes())
    return found.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("packing", [Packing(), Packing(pack=False), Packing(random_offset=False)])
def test_resuming_anywhere_goes_on_as_if_nothing_happened(
    context: DataContext, packing: Packing
) -> None:
    whole = take(open_stream(context, packing), 60)  # several epochs
    for stop in (0, 1, 7, 23, 40):
        first = open_stream(context, packing)
        take(first, stop)
        second = open_stream(context, packing)
        second.load_state_dict(first.state_dict())
        assert digest(take(second, 60 - stop)) == digest(whole[stop:])


@pytest.mark.slow
def test_workers_change_nothing_and_only_deliveries_count(context: DataContext) -> None:
    whole = take(open_stream(context), 40)
    stream = open_stream(replace(context, workers=2))
    first = take(stream, 9)
    assert stream.state_dict() == {"samples": 18}  # more were prefetched
    stream.close()
    resumed = open_stream(replace(context, workers=2))
    resumed.load_state_dict({"samples": 18})
    assert digest(first + take(resumed, 31)) == digest(whole)
    resumed.load_state_dict({"samples": 18})  # in place, with workers running
    assert digest(take(resumed, 5)) == digest(whole[9:14])
    resumed.close()


def test_opening_draws_nothing_from_the_generator_of_the_run(context: DataContext) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    take(open_stream(context), 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 8])
def test_micro_batches_hold_the_same_samples_in_each_step(
    context: DataContext, micro_batch_size: int
) -> None:
    whole = take(open_stream(replace(context, micro_batch_size=8)), 6)
    parts = take(
        open_stream(replace(context, micro_batch_size=micro_batch_size)), 6 * 8 // micro_batch_size
    )
    for key in ("tokens", "targets", "positions"):
        assert torch.equal(torch.cat([b[key] for b in parts]), torch.cat([b[key] for b in whole]))


def test_ranks_share_out_the_batch(context: DataContext) -> None:
    whole = take(open_stream(context), 12)
    ranks = [open_stream(replace(context, rank=rank, world=2)) for rank in range(2)]
    for number in range(6):
        for rank, stream in enumerate(ranks):
            assert digest([next(stream)]) == digest([whole[2 * number + rank]])
    assert ranks[0].state_dict() == ranks[1].state_dict() == {"samples": 24}


def test_a_cursor_within_a_micro_batch_is_refused(context: DataContext) -> None:
    with pytest.raises(
        CheckpointError, match=r"6 samples are no multiple of micro-batch x ranks = 4"
    ):
        open_stream(replace(context, micro_batch_size=4)).load_state_dict({"samples": 6})


@pytest.mark.parametrize("random_offset", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_every_epoch_trains_on_every_token_once(
    context: DataContext, random_offset: bool, mask: bool
) -> None:
    context = replace(
        context,
        encode=masked if mask else encode,
        encode_key=str(mask),
        batch_size=1,
        micro_batch_size=1,
    )
    stream = open_stream(
        context, Packing(too_long="split", on_fully_masked="drop", random_offset=random_offset)
    )
    expected = [
        int(t)
        for s in context.encode(documents())
        for t in (s.tokens[1:] if s.trained is None else s.tokens[1:][s.trained[1:]])
    ]
    orders = []
    for _ in range(4):
        rows = take(stream, stream.samples_per_epoch)
        targets = torch.cat([row["targets"].flatten() for row in rows])
        assert sorted(targets[targets != -100].tolist()) == sorted(expected)
        orders.append(targets.tolist())
    assert len({str(order) for order in orders}) == 4


@pytest.mark.parametrize("pack", [True, False])
def test_a_batch_is_laid_out_as_promised(context: DataContext, pack: bool) -> None:
    packing = Packing(pack=pack)
    for batch in take(open_stream(context, packing), 20):
        assert (
            batch["tokens"].dtype
            == batch["targets"].dtype
            == batch["positions"].dtype
            == torch.int64
        )
        assert batch["tokens"].shape == batch["targets"].shape == batch["positions"].shape == (2, T)
        assert batch["boundaries"].dtype == torch.int32
        assert batch["boundaries"].shape == (2 * (pieces_per_row(T, packing) + 1) + 1,)
        edges = batch["boundaries"].tolist()
        real = edges[: edges.index(2 * T) + 1]
        assert edges[len(real) :] == [2 * T] * (len(edges) - len(real))
        assert real[0] == 0
        assert T in real  # no piece spans rows
        tokens, targets, positions = (
            batch[key].flatten().tolist() for key in ("tokens", "targets", "positions")
        )
        for begin, end in pairwise(real):
            assert begin < end
            assert positions[begin:end] == list(range(end - begin))
            if all(target == -100 for target in targets[begin:end]):
                assert tokens[begin:end] == [END] * (end - begin)
            else:  # each target is the token fed next, and a piece holds one document
                assert targets[begin : end - 1] == tokens[begin + 1 : end]
                assert len({*tokens[begin:end], targets[end - 1]} - {END}) <= 1


@pytest.mark.slow
def test_validation_ends_and_scores_every_token_once(context: DataContext) -> None:
    context = replace(context, split="validation", micro_batch_size=4)
    for workers in (0, 2):
        stream = open_stream(replace(context, workers=workers))
        batches = list(stream)
        assert all(batch["tokens"].shape == (4, T) for batch in batches)
        assert len(batches) == -(-stream.samples_per_epoch // 4)
        targets = torch.cat([batch["targets"].flatten() for batch in batches])
        expected = sorted(int(t) for s in encode(documents()) for t in s.tokens[1:])
        assert sorted(targets[targets != -100].tolist()) == expected
        with pytest.raises(StopIteration):
            next(stream)
        stream.load_state_dict({"samples": 0})
        assert digest(list(stream)) == digest(batches)
        stream.close()


def test_validation_ranks_deliver_equally_many_batches(context: DataContext) -> None:
    context = replace(context, split="validation", batch_size=6)
    ranks = [list(open_stream(replace(context, rank=rank, world=3))) for rank in range(3)]
    assert len({len(batches) for batches in ranks}) == 1
    targets = torch.cat([b["targets"].flatten() for batches in ranks for b in batches])
    assert (targets != -100).sum() == sum(size + 1 for size in SIZES)


def test_seeds_give_different_orders(context: DataContext) -> None:
    assert digest(take(open_stream(context), 5)) != digest(
        take(open_stream(replace(context, seed=6)), 5)
    )
