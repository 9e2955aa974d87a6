"""Rows of like lengths are computed together: what is padding is computed for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.passes import may_split_rows

__all__ = ["PASS_OF_SOUNDS", "PASS_ON_CPU", "PASS_ON_GPU", "group_like_lengths"]

# What a further pass of a model costs, in tokens: on a CPU its operations take as long as a few
# tokens, and a GPU needs thousands at once to be busy. With 128 in place of 24 a step of 128 pairs
# of a help took 8% less, but 15% of it was padding; with 20 less than 10% is, in 16 to 128 pairs.
PASS_ON_CPU = 20
PASS_ON_GPU = 8192
# In frames after subsampling, on a CPU: an LSTM goes through the frames of each pass one by one. Of
# sixteen prompts of 1 to 25 seconds a pass forward and backward took a third of the time with
# Conformer's blocks, and two thirds with LSTMs; of those of alike lengths the same.
PASS_OF_SOUNDS = 96
# With more places to cut, finding the best ones takes longer than it saves.
_PLACES = 64


def group_like_lengths(sides: Sequence[NDArray[Any]], cost: int) -> list[NDArray[np.int64]]:
    """Return the numbers of rows in groups of like lengths, cut where the tokens with their
    padding, and what each group costs, are the fewest.

    A function of the lengths alone; one group where only one pass may be made. By dynamic
    programming over the rows in order of length.

    Args:
        sides: One or more lengths of each row; each side is padded to its longest in a group.
        cost: Of a group, in tokens.
    """
    order = np.lexsort((sides[-1], np.sum(sides, axis=0)))
    if not may_split_rows():
        return [order]
    places = np.unique(np.linspace(0, len(order), min(len(order), _PLACES) + 1).astype(np.int64))
    # The longest of each side between two places.
    longest = [np.maximum.reduceat(side[order], places[:-1]) for side in sides]
    best = np.zeros(len(places))
    begins = np.zeros(len(places), dtype=np.int64)
    for end in range(1, len(places)):
        # Of groups that begin at each place before, and end here.
        widths = sum(np.maximum.accumulate(side[:end][::-1])[::-1] for side in longest)
        total = best[:end] + (places[end] - places[:end]) * widths + cost
        begins[end] = total.argmin()
        best[end] = total[begins[end]]
    groups = []
    end = len(places) - 1
    while end:
        groups.append(order[places[begins[end]] : places[end]])
        end = int(begins[end])
    return groups
