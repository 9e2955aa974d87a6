"""Where processes need each other to compute a layer, a batch is computed in one pass."""

from __future__ import annotations

import numpy as np

from groundup.core.passes import may_split_rows, one_pass_each
from groundup.nn.like_lengths import group_like_lengths


def test_rows_are_split_by_length_unless_all_make_one_pass() -> None:
    lengths = np.array([2, 100, 3, 90])
    assert [sorted(group) for group in group_like_lengths((lengths,), 1)] != [[0, 1, 2, 3]]
    with one_pass_each():
        assert not may_split_rows()
        (together,) = group_like_lengths((lengths,), 1)
        assert sorted(together) == [0, 1, 2, 3]
    assert may_split_rows()
