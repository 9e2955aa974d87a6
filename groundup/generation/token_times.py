"""When each token of a text is said, from what its decoder attends to in the sound.

Legend: N heads, T tokens, S positions of the sound.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["token_begins", "warp"]

_MEDIAN = 7
"""Positions that a median is taken of; single ones that stand out are noise."""


def token_begins(attention: Tensor, before: int = 0, after: int = 0) -> list[int]:
    """Return the position of the sound at which each token begins, (T,), rising.

    Args:
        attention: (N, before + T + after, S), S as long as the sound. The row of a token is that of
            the token before it, from which it was predicted; a last row for the end of the text
            tells where the last token ends.
        before: Rows before the first token's, such as the start token's: with these the others are
            compared too.
        after: Rows after the last one, likewise.

    Source:
        As in the published code of Whisper: Radford et al., 2022 (arXiv:2212.04356); dynamic time
        warping: Sakoe and Chiba, 1978, "Dynamic programming algorithm optimization for spoken word
        recognition".
    """
    rows = attention.float()
    # The silence after a sound, which is cut off here, is attended to as well, by some tokens more.
    rows = rows / rows.sum(2, keepdim=True).clamp(min=1e-9)
    # What all tokens attend to, such as the sound's loud parts, tells nothing about any.
    spread = rows.std(1, unbiased=False, keepdim=True).clamp(min=1e-9)
    rows = (rows - rows.mean(1, keepdim=True)) / spread
    around = _MEDIAN // 2
    if rows.shape[2] > around:
        padded = F.pad(rows, (around, around), mode="reflect")
        rows = padded.unfold(2, _MEDIAN, 1).sort(-1).values[..., around]
    kept = rows.mean(0)[before : rows.shape[1] - after]
    mean: NDArray[np.float64] = kept.double().cpu().numpy()
    tokens, places = warp(-mean)
    # The first step of the path in each row.
    changes = np.flatnonzero(np.diff(tokens, prepend=-1))
    return [int(place) for place in places[changes]]


def warp(costs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns of the cheapest path through costs (T, S) from the first corner
    to the last, each step one row or one column on, or both."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((rows + 1, columns + 1), np.int8)
    # Along diagonals, on which no place depends on another.
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, row, column = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        chosen = np.full(len(i), 2, np.int8)
        chosen[(row < both) & (row < column)] = 1
        chosen[(both < row) & (both < column)] = 0
        step[i, j] = chosen
        total[i, j] = costs[i - 1, j - 1] + np.choose(chosen, (both, row, column))
    step[0, :] = 2
    step[:, 0] = 1
    i, j = rows, columns
    path = []
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        way = step[i, j]
        i -= int(way != 2)
        j -= int(way != 1)
    found = np.array(path[::-1], np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
