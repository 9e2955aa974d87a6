"""How well texts are found by the vectors that stand for them. Legend: N queries, M candidates, C
numbers a vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks", "retrieval_measures"]

Floats = NDArray[np.float64]
_AT_ONCE = 1024


def ranks(queries: Floats, candidates: Floats, right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N,) the place, from 1, of each query's right candidate; of equals it counts as the
    last.

    Args:
        queries: (N, C) of length 1.
        candidates: (M, C) of length 1.
        right: (N,) which candidate is the right one.
    """
    found = []
    for start in range(0, len(queries), _AT_ONCE):
        scores = queries[start : start + _AT_ONCE] @ candidates.T
        own = scores[np.arange(len(scores)), right[start : start + _AT_ONCE]]
        # The last of equals: a model that gives every text the same vector must not be first.
        found.append((scores >= own[:, None]).sum(1))
    return np.concatenate(found).astype(np.int64)


def retrieval_measures(places: NDArray[np.int64], candidates: int) -> dict[str, float]:
    """Return accuracy at 1, recall at 10 and mean reciprocal rank, next to the accuracy of drawing
    a candidate.

    Source:
        Mean reciprocal rank: Voorhees, 1999, "The TREC-8 question answering track report", section
            3.
    """
    return {
        "accuracy_at_1": float((places == 1).mean()),
        "recall_at_10": float((places <= 10).mean()),
        "mean_reciprocal_rank": float((1 / places).mean()),
        "baseline_accuracy_at_1": 1 / candidates,
    }
