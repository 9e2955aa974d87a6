"""The best combinations are those that looking at all of them finds."""

from __future__ import annotations

from itertools import islice, product

import numpy as np
import pytest

from groundup.generation.combinations import best_different, combine_by_score


@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 3), (4, 1, 3), (3, 3, 3, 2)])
def test_combinations_against_all_of_them(sizes: tuple[int, ...]) -> None:
    draws = np.random.default_rng(len(sizes))
    # Whole numbers: many sums are equal.
    lists = [sorted(draws.integers(-5, 1, n).tolist(), reverse=True) for n in sizes]
    every = sorted((sum(each) for each in product(*lists)), reverse=True)
    found = list(combine_by_score(lists))
    assert [total for _, total in found] == every
    assert len({places for places, _ in found}) == len(every)
    for places, total in found:
        assert sum(own[place] for own, place in zip(lists, places, strict=True)) == total


def test_of_a_large_product_only_the_best_is_looked_at() -> None:
    lists = [[0.0, -1.0 - n / 1000, -5.0] for n in range(60)]
    first, *others = islice(combine_by_score(lists), 5)
    assert first == ((0,) * 60, 0.0)
    assert [places.index(1) for places, _ in others] == [0, 1, 2, 3]


def test_each_result_once_with_its_best_sum() -> None:
    lists = [[("a", -1.0), ("ab", -2.0)], [("b", -0.5), ("", -0.75)]]

    def join(parts: object) -> str:
        return "".join(text for text, _ in parts)  # type: ignore[attr-defined]

    found = best_different(lists, lambda each: each[1], join, 5)
    # "ab" is made of both lists in two ways.
    assert found == [("ab", -1.5), ("a", -1.75), ("abb", -2.5)]
    assert best_different(lists, lambda each: each[1], join, 2) == found[:2]
