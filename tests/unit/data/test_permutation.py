"""The keyed permutation: bijective at every size, different for every key, and well mixed."""

from itertools import pairwise

import numpy as np
import pytest

from groundup.core.seeding import key as key_of
from groundup.core.seeding import scramble
from groundup.data.stream.permutation import permute

GOLDEN = [0, 3, 2, 1, 6, 4, 9, 5, 7, 8]
GOLDEN_LARGE = 698_993_647_197


@pytest.mark.parametrize(
    "size", [1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 97, 100, 101, 997, 1024, 4097, 100_003]
)
def test_it_is_a_bijection(size: int) -> None:
    for seed in range(3):
        moved = permute(np.arange(size), size, key_of(seed, "rows", 0))
        assert np.array_equal(np.sort(moved), np.arange(size))


def test_one_index_and_an_array_agree() -> None:
    key = key_of(7, "rows", 2)
    moved = permute(np.arange(30).reshape(5, 6), 30, key)
    assert moved.shape == (5, 6)
    assert [permute(n, 30, key) for n in range(30)] == moved.ravel().tolist()


def test_the_order_never_changes_between_versions() -> None:
    assert permute(np.arange(10), 10, key_of(0, "rows", 0)).tolist() == GOLDEN
    assert permute(123_456_789, 10**12, key_of(1, "rows", 5)) == GOLDEN_LARGE


def test_huge_sizes_need_no_memory() -> None:
    size = 2**61 + 13
    moved = permute(np.arange(1000), size, key_of(0, "rows"))
    assert len(np.unique(moved)) == 1000
    assert moved.min() >= 0
    assert moved.max() < size


def test_epochs_are_independent() -> None:
    size = 2000
    orders = [permute(np.arange(size), size, key_of(0, "rows", epoch)) for epoch in range(20)]
    for one, other in pairwise(orders):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
        assert (one == other).sum() < 10  # about 1 is expected
    fixed = [(order == np.arange(size)).sum() for order in orders]
    assert sum(fixed) < 45  # about 20 are expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [6, 24, 25, 1009])
def test_every_index_goes_everywhere_equally_often(size: int) -> None:
    keys, bins = 1200, 6
    moved = np.array(
        [permute(np.array([0, 1, size - 1]), size, key_of(seed, "rows")) for seed in range(keys)]
    )
    for column in moved.T:
        counts = np.bincount(column * bins // size, minlength=bins)
        shares = np.bincount(np.arange(size) * bins // size, minlength=bins) / size
        chi_square = ((counts - keys * shares) ** 2 / (keys * shares)).sum()
        assert chi_square < 25.0  # 5 degrees of freedom: exceeded once in 7,000


@pytest.mark.slow
def test_all_orders_of_three_occur() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        order = tuple(permute(np.arange(3), 3, key_of(seed, "rows")).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert min(counts.values()) > 60


def test_neighbours_are_spread() -> None:
    size = 10_000
    moved = permute(np.arange(size), size, key_of(3, "rows"))
    assert abs(np.abs(np.diff(moved)).mean() / size - 1 / 3) < 0.01


def test_an_index_outside_is_refused() -> None:
    with pytest.raises(IndexError, match=r"outside \[0, 5\)"):
        permute(5, 5, 0)
    with pytest.raises(IndexError):
        permute(-1, 5, 0)


def test_scramble_flips_half_of_the_bits() -> None:
    values = np.arange(4096)
    flipped = scramble(values, 5) ^ scramble(values ^ 1, 5)
    assert 30 < np.bitwise_count(flipped).mean() < 34
