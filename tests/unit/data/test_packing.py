"""Cutting and packing: every trained token is a target exactly once an epoch, rows hold what they
may, plans repeat."""

import numpy as np
import pytest

from groundup.data.stream.packing import (
    Packing,
    Plan,
    best_fit_decreasing,
    pieces_per_row,
    plan_rows,
)

LENGTHS = np.array([2, 3, 5, 17, 18, 1, 33, 100, 16, 0, 9, 40, 17, 2, 250])
T = 16


def targets_of(plan: Plan) -> dict[tuple[int, int], int]:
    """Count how often each (document, token) is predicted."""
    counts: dict[tuple[int, int], int] = {}
    for document, start, length, skip in zip(
        plan.document, plan.start, plan.length, plan.first_scored, strict=True
    ):
        for token in range(start + skip + 1, start + length + 1):
            counts[int(document), int(token)] = counts.get((int(document), int(token)), 0) + 1
    return counts


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("random_offset", [True, False])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.95])
def test_every_token_is_a_target_once(
    split: str, pack: bool, random_offset: bool, overlap: float
) -> None:
    packing = Packing(pack=pack, random_offset=random_offset, evaluation_overlap=overlap)
    for key in range(5):
        plan = plan_rows(LENGTHS, T, key, packing, split)  # type: ignore[arg-type]
        expected = {
            (d, token): 1 for d, length in enumerate(LENGTHS.tolist()) for token in range(1, length)
        }
        assert targets_of(plan) == expected
        assert (plan.start >= 0).all()
        assert (plan.length >= 1).all()
        assert (plan.start + plan.length <= LENGTHS[plan.document] - 1).all()
        assert (plan.first_scored < plan.length).all()


@pytest.mark.parametrize("pack", [True, False])
def test_rows_hold_what_they_may(pack: bool) -> None:
    packing = Packing(pack=pack)
    plan = plan_rows(LENGTHS, T, 3, packing, "train")
    used = np.add.reduceat(plan.length, plan.row_starts[:-1])
    assert used.max() <= T
    assert np.diff(plan.row_starts).min() >= 1
    assert np.diff(plan.row_starts).max() <= pieces_per_row(T, packing)
    assert plan.row_starts[-1] == len(plan.document)


def test_plans_repeat_and_epochs_differ() -> None:
    def fields(key: int) -> list[list[int]]:
        plan = plan_rows(LENGTHS, T, key, Packing(), "train")
        return [
            plan.document.tolist(),
            plan.start.tolist(),
            plan.length.tolist(),
            plan.row_starts.tolist(),
        ]

    assert fields(1) == fields(1)
    assert fields(1) != fields(2)


def test_first_cuts_are_spread_over_the_window() -> None:
    plan = plan_rows(np.full(3000, 64), T, 9, Packing(pack=False), "train")
    first = plan.length[plan.start == 0]
    assert len(first) == 3000
    counts = np.bincount(first, minlength=T + 1)
    assert counts[0] == 0
    assert counts[1:].min() > 120  # 187.5 are expected


def test_windows_overlap_in_validation_only() -> None:
    plan = plan_rows(np.array([41]), T, 0, Packing(pack=False), "validation")
    assert plan.start.tolist() == [0, 8, 16, 24]
    assert plan.length.tolist() == [16, 16, 16, 16]
    assert plan.first_scored.tolist() == [0, 8, 8, 8]
    assert not plan.varies
    train = plan_rows(np.array([41]), T, 0, Packing(pack=False, random_offset=False), "train")
    assert train.start.tolist() == [0, 16, 32]
    assert train.first_scored.tolist() == [0, 0, 0]


def test_drop_and_truncate() -> None:
    long = int((LENGTHS - 1 > T).sum())
    dropped = plan_rows(LENGTHS, T, 0, Packing(too_long="drop"), "train")
    assert dropped.dropped == long
    assert set(dropped.document.tolist()) == {
        d for d, n in enumerate(LENGTHS.tolist()) if 2 <= n <= T + 1
    }
    cut = plan_rows(LENGTHS, T, 0, Packing(too_long="truncate"), "train")
    assert cut.truncated == long
    assert (cut.start == 0).all()
    assert sorted(cut.length.tolist()) == sorted(min(n - 1, T) for n in LENGTHS.tolist() if n > 1)


def test_best_fit_equals_the_textbook_loop() -> None:
    generator = np.random.default_rng(0)
    for capacity, most in ((10, 3), (50, 8), (64, 100)):
        lengths = generator.integers(1, capacity + 1, 300)
        rows: list[list[int]] = []
        for length in sorted(lengths.tolist(), reverse=True):
            fits = [row for row in rows if len(row) < most and sum(row) + length <= capacity]
            best = max(fits, key=sum, default=None)
            rows.append([length]) if best is None else best.append(length)
        found = best_fit_decreasing(lengths, capacity, most, np.arange(300))
        packed = [lengths[found == row].sum() for row in range(found.max() + 1)]
        assert min(packed) > 0
        assert max(packed) <= capacity
        assert np.bincount(found).max() <= most
        if (
            most >= capacity
        ):  # with a limit on pieces, which of two equally full rows is taken matters
            assert sorted(packed) == sorted(sum(row) for row in rows)


def test_ties_change_the_rows_but_not_their_number() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 40, 2000)
    one, other = (
        best_fit_decreasing(lengths, 64, 8, generator.permutation(2000)) for _ in range(2)
    )
    assert one.max() == other.max()
    assert not np.array_equal(one, other)


def test_packing_fills_rows() -> None:
    lengths = np.random.default_rng(2).integers(10, 400, 5000)
    plan = plan_rows(lengths, 256, 0, Packing(), "train")
    assert plan.length.sum() / (plan.rows * 256) > 0.99


def test_nothing_to_predict_gives_no_rows() -> None:
    for pack in (True, False):
        assert plan_rows(np.array([0, 1, 1]), T, 0, Packing(pack=pack), "train").rows == 0
