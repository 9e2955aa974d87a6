"""When tokens are said: the cheapest path, and positions found again in attention with noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from groundup.generation.token_times import token_begins, warp


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 4), (4, 3)])
def test_no_path_is_cheaper(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(3).normal(size=shape)
    rows, columns = warp(costs)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1] + 1, columns[-1] + 1) == shape
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    # Every path there is, written as its steps.
    cheapest = np.inf
    for length in range(max(shape), sum(shape)):
        for way in itertools.product(((0, 1), (1, 0), (1, 1)), repeat=length - 1):
            places = np.cumsum([(0, 0), *way], axis=0)
            if tuple(places[-1] + 1) == shape and (places < shape).all():
                cheapest = min(cheapest, costs[tuple(places.T)].sum())
    assert costs[rows, columns].sum() == pytest.approx(cheapest)


def test_positions_are_found_again() -> None:
    begins = [0, 20, 31, 60, 90]
    attention = torch.zeros(3, 5, 100)
    for token, (first, last) in enumerate(itertools.pairwise([*begins, 100])):
        attention[:, token, first:last] = 1.0
    # What every token attends to does not count, nor does a single position.
    torch.manual_seed(0)
    attention = attention + torch.rand(3, 5, 100) * 0.5 + 3 * (torch.rand(1, 1, 100) < 0.1)
    attention[:, 4, 5] += 4
    found = token_begins(attention / attention.sum(-1, keepdim=True))
    assert all(abs(one - other) <= 1 for one, other in zip(found, begins, strict=True)), found
    # How much of its attention a token leaves for the silence after the sound does not count.
    less = attention * torch.tensor([1.0, 0.3, 0.5, 0.1, 0.9])[:, None]
    assert token_begins(less) == token_begins(attention)
    # Of rows around those of the tokens none is said.
    around = torch.cat((attention[:, :1], attention, attention[:, 4:]), 1)
    inner = token_begins(around, 1, 1)
    assert all(abs(one - other) <= 1 for one, other in zip(inner, begins, strict=True)), inner
    # A sound shorter than the median's window.
    assert token_begins(torch.rand(2, 2, 2)) in ([0, 0], [0, 1])
