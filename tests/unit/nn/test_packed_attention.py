"""What packed attention gives a GPU; its results are compared in the parity tests."""

from __future__ import annotations

import pytest
import torch

from groundup.nn import packed_attention as packed


@pytest.mark.parametrize(
    ("boundaries", "kept", "longest"),
    [
        ([0, 100, 300, 1000, 1000, 1000, 1000, 1000, 1000], [0, 100, 300, 1000], 1024),
        ([0, 1000], [0, 1000], 1024),
        ([0, 10, 20, 30, 30, 30], [0, 10, 20, 30], 128),
        ([0, 512, 1024], [0, 512, 1024], 512),
    ],
)
def test_a_gpu_is_given_few_sizes(boundaries: list[int], kept: list[int], longest: int) -> None:
    given = torch.tensor(boundaries, dtype=torch.int32)
    found, most = packed._trimmed(given, boundaries[-1])
    assert found.tolist() == kept
    assert most == longest
    assert packed.on_a_gpu(given, boundaries[-1]) == (given, None)
