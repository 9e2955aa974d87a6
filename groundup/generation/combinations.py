"""The best combinations of one element from each of several lists."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["best_different", "combine_by_score"]

T = TypeVar("T")
V = TypeVar("V")


def combine_by_score(scores: Sequence[Sequence[float]]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield the places of one score from each list, and their sum, the highest sums first.

    Lazily, with a heap: of the product of all lists only what is near the best is looked at. After
    a combination come those with one place one lower; each is made of one other alone, as only
    the last list that was moved in, and those after it, are moved in further.

    Args:
        scores: Lists with an element at least, each from the highest to the lowest.

    Source:
        Huang and Chiang, 2005, "Better k-best parsing", algorithm 2 (lazy enumeration of a product
        of sorted lists).
    """
    first = (0,) * len(scores)
    # The negative sum, as a heap gives the lowest; then the places, so that equal sums have an
    # order; then the list that was moved in last.
    waiting = [(-sum(each[0] for each in scores), first, 0)]
    while waiting:
        cost, places, moved = heapq.heappop(waiting)
        yield places, -cost
        for number in range(moved, len(scores)):
            place = places[number]
            if place + 1 == len(scores[number]):
                continue
            lower = scores[number][place] - scores[number][place + 1]
            following = (*places[:number], place + 1, *places[number + 1 :])
            heapq.heappush(waiting, (cost + lower, following, number))


def best_different(
    lists: Sequence[Sequence[T]],
    score: Callable[[T], float],
    join: Callable[[Sequence[T]], V],
    count: int,
) -> list[tuple[V, float]]:
    """Return what the best combinations are joined to, and their sums: at most ``count``, each
    result once, with its best sum.

    Args:
        lists: Each from the best element to the worst.
        score: Of an element.
        join: Makes the result of an element from each list.
        count: How many results are wanted.
    """
    found: dict[V, float] = {}
    for places, total in combine_by_score([[score(each) for each in own] for own in lists]):
        if len(found) == count:
            break
        joined = join([own[place] for own, place in zip(lists, places, strict=True)])
        found.setdefault(joined, total)
    return list(found.items())
