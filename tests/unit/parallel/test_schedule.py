"""The order of passes: each after what it reads, on all processes, without one waiting for ever."""

from __future__ import annotations

import pytest

from groundup.parallel.schedule import Pass, order_passes

SHAPES = [(2, 1, 1), (2, 1, 5), (4, 1, 8), (4, 1, 2), (2, 2, 2), (2, 3, 4), (4, 2, 8)]


@pytest.mark.parametrize(("size", "chunks", "micro_batches"), SHAPES)
def test_every_pass_once_and_nobody_waits_for_ever(
    size: int, chunks: int, micro_batches: int
) -> None:
    orders = [
        order_passes(place, size, chunks, micro_batches, trains=True) for place in range(size)
    ]
    last = size * chunks - 1
    done: set[tuple[bool, int, int]] = set()

    def is_ready(place: int, each: Pass) -> bool:
        stage = each.chunk * size + place
        if each.forward:
            return stage == 0 or (True, stage - 1, each.micro_batch) in done
        after = (False, stage + 1, each.micro_batch)
        return (True, stage, each.micro_batch) in done and (stage == last or after in done)

    # Sends do not wait, so that a process goes on as soon as what it reads has been computed.
    left = [list(order) for order in orders]
    while any(left):
        ready = [place for place in range(size) if left[place] and is_ready(place, left[place][0])]
        assert ready, "all wait for each other"
        for place in ready:
            each = left[place].pop(0)
            done.add((each.forward, each.chunk * size + place, each.micro_batch))
    assert len(done) == 2 * size * chunks * micro_batches


def test_few_activations_are_kept() -> None:
    """However many micro-batches there are, a process keeps as many as processes follow it, and
    one."""
    for place in range(4):
        kept = most = 0
        for each in order_passes(place, 4, 1, 20, trains=True):
            kept += 1 if each.forward else -1
            most = max(most, kept)
        assert most == 4 - place
        assert kept == 0


def test_without_training_there_are_forward_passes_alone() -> None:
    """Of any number of micro-batches, as the end of a validation has them."""
    assert order_passes(1, 2, 1, 2, trains=False) == [Pass(True, 0, 0), Pass(True, 0, 1)]
    assert order_passes(0, 2, 2, 1, trains=False) == [Pass(True, 0, 0), Pass(True, 1, 0)]
