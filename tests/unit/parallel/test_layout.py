"""Places on the axes, who computes which samples, and what is said where it does not work out."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout, settle
from groundup.recipe.sections import Parallel


def test_neighbours_share_the_innermost_axis() -> None:
    sizes = {"pipeline": 2, "replicate": 3, "shard": 2, "tensor": 2}
    places = [Layout(**sizes, rank=rank).places for rank in range(24)]
    assert places[0] == dict.fromkeys(places[0], 0)
    assert places[1] == places[0] | {"tensor": 1}
    assert places[2] == places[0] | {"shard": 1}
    assert places[4] == places[0] | {"replicate": 1}
    assert places[12] == places[0] | {"pipeline": 1}
    assert places[23] == {"pipeline": 1, "replicate": 2, "shard": 1, "context": 0, "tensor": 1}
    assert len({tuple(each.values()) for each in places}) == 24


def test_groups_along_an_axis() -> None:
    layout = Layout(replicate=2, shard=2, tensor=2)
    assert layout.ranks_along("tensor") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert layout.ranks_along("replicate") == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert layout.ranks_along("replicate", "shard") == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_samples_are_divided_over_replicas_and_shards() -> None:
    """Each part is computed by all that share its samples, and told by one of the last stage."""
    layouts = [Layout(pipeline=2, replicate=2, shard=2, tensor=2, rank=rank) for rank in range(16)]
    assert [each.data_rank for each in layouts] == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    assert {each.data_size for each in layouts} == {4}
    assert layouts[0].reporting_ranks == [8, 10, 12, 14]
    assert Layout().reporting_ranks == [0]
    assert Layout(replicate=3).reporting_ranks == [0, 1, 2]


def test_replicas_are_what_the_other_axes_leave() -> None:
    assert settle(Parallel(), 1) == Layout()
    assert settle(Parallel(), 6, 5) == Layout(replicate=6, rank=5)
    assert settle(Parallel(shard=2, tensor=2), 8) == Layout(replicate=2, shard=2, tensor=2)
    assert settle(Parallel(replicate=2, shard=2), 4) == Layout(replicate=2, shard=2)


@pytest.mark.parametrize(
    ("settings", "processes", "said"),
    [
        (
            {"replicate": 4},
            2,
            "recipe.parallel: asks for 4 processes (replicate 4), but there are 2. Start 4 with"
            " groundup launch --nproc 4, or set replicate: auto.",
        ),
        (
            {"replicate": 1},
            2,
            "recipe.parallel: asks for 1 process (replicate 1), but there are 2. Start 1 with"
            " groundup launch --nproc 1, or set replicate: auto.",
        ),
        (
            {"replicate": 2, "shard": 2},
            1,
            "recipe.parallel: asks for 4 processes (replicate 2 x shard 2), but there is 1. Start 4"
            " with groundup launch --nproc 4, or set replicate: auto.",
        ),
        (
            {"shard": 2, "tensor": 2},
            6,
            "recipe.parallel: asks for a multiple of 4 processes (shard 2 x tensor 2), but there"
            " are 6. Start as many with groundup launch --nproc 4, or change the axes.",
        ),
        (
            {"shard": 2, "exact": True},
            2,
            "recipe.parallel.exact: adds gradients up in the order of the samples, which shard 2"
            " cannot. Remove one of them: exact works with replicate alone.",
        ),
    ],
)
def test_what_does_not_work_out(settings: dict[str, Any], processes: int, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        settle(Parallel(**settings), processes)
    assert str(caught.value) == said
