"""How well what users chose is found among all items that are ranked for them.

Legend: U users, N items, K how long a list is, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.metrics.bootstrap import bootstrap_weights

__all__ = ["Ranked", "coverage", "interval", "mean_popularity", "rank_chosen"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """What was found for each user, by how long the list is.

    Attributes:
        hit_rate: (U,) whether any chosen item is on the list.
        ndcg: (U,) discounted cumulative gain over the best that is possible.
        recall: (U,) the share of the chosen items that is on the list.
        reciprocal: (U,) one over the place of the first chosen item in the whole ranking.
    """

    hit_rate: Floats
    ndcg: Floats
    recall: Floats
    reciprocal: Floats

    def by_name(self, length: int) -> dict[str, Floats]:
        """Return (U,) of each measure by its name."""
        return {
            f"hr_at_{length}": self.hit_rate,
            f"ndcg_at_{length}": self.ndcg,
            f"recall_at_{length}": self.recall,
            "mrr": self.reciprocal,
        }

    def take(self, chosen: Numbers) -> Ranked:
        """Return what was found for some of the users."""
        parts = (self.hit_rate, self.ndcg, self.recall, self.reciprocal)
        return Ranked(*(part[chosen] for part in parts))


def rank_chosen(scores: Floats, chosen: Sequence[Numbers], length: int) -> Ranked:
    """Return what is found of the items that users chose.

    Among equal scores a chosen item comes last: a model that says the same of all items finds none.
    An item whose score is minus infinity is never found.

    Args:
        scores: (U, N) of every item.
        chosen: Of each user the numbers of the items, one or several.
        length: How long a list is.

    Source:
        Järvelin and Kekäläinen, 2002, "Cumulated gain-based evaluation of IR techniques", with a
        gain of 1 and the logarithm to base 2 of the place plus 1.
    """
    found = np.zeros((4, len(chosen)))
    discounts = 1 / np.log2(np.arange(2, length + 2))
    for user, items in enumerate(chosen):
        # A user at a time: they chose different numbers of items.
        row = scores[user]
        own = np.sort(row[items])[::-1]
        above = (row[None] >= own[:, None]).sum(1)
        # Without the chosen ones themselves, each of which is counted by its place among them.
        places = above - (own[None] >= own[:, None]).sum(1) + np.arange(len(own))
        places = np.where(np.isneginf(own), np.iinfo(np.int64).max, places)
        on_list = places[places < length]
        # A list is as good as can be with all that was chosen on top.
        best = discounts[: len(items)].sum()
        found[0, user] = len(on_list) > 0
        found[1, user] = discounts[on_list].sum() / best if len(items) else 0.0
        found[2, user] = len(on_list) / max(len(items), 1)
        if len(items) and not np.isneginf(own[0]):
            found[3, user] = 1 / (int(places[0]) + 1)
    return Ranked(*found)


def interval(values: Floats, seed: int) -> tuple[float, float]:
    """Return where the mean of (U,) is with 95% confidence, by resamples of users."""
    if not len(values):
        return 0.0, 0.0
    # Users are drawn, not interactions: what one user did belongs together.
    weights = bootstrap_weights(len(values), seed)
    means = np.concatenate([own @ values / len(values) for own in weights])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def coverage(lists: Numbers, items: int) -> float:
    """Return the share of all items that is on at least one list (U, K)."""
    return len(np.unique(lists[lists > 0])) / max(items, 1)


def mean_popularity(lists: Numbers, counts: Numbers) -> float:
    """Return how often an item of the lists (U, K) was chosen in training, on average, in multiples
    of what an average item was; ``counts`` (N + 1,) begin with the unknown item."""
    average = counts[1:].mean()
    on_lists = lists[lists > 0]
    return float(counts[on_lists].mean() / average) if len(on_lists) and average else 0.0
