"""Scores of all items for users, a part of the users at a time.

Shape legend: U users, N items, C width, K how long a list is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.recommendation import NOBODY, Recommender, UserHistory
from groundup.core.values import Batch
from groundup.generation.scoring import device_of, evaluating
from groundup.processors.interactions import InteractionsProcessor, pad, read_from
from groundup.tasks.recommend.transitions import log_shares

__all__ = ["AT_ONCE", "encode_histories", "explain", "hide_seen", "model_scores", "top_items"]

AT_ONCE = 256
"""Users whose scores are in memory at a time."""


def encode_histories(
    asked: Sequence[UserHistory], processor: InteractionsProcessor, *, hides: bool
) -> Batch:
    """Return what a model reads of users and their histories; with ``hides`` the item that comes
    next stands at the end, hidden."""
    longest = processor.max_history
    rows = [processor.item_numbers(each.items) for each in asked]
    if hides:
        hidden = np.array([len(processor.items) + 1])
        rows = [np.concatenate([row, hidden])[-longest:] for row in rows]
    else:
        rows = [read_from(row, longest) for row in rows]
    return processor.encode_users(asked) | pad(rows)


def model_scores(
    model: nn.Module,
    asked: Sequence[UserHistory],
    processor: InteractionsProcessor,
    transition_share: float = 0.0,
) -> Iterator[Tensor]:
    """Yield (U, N + 1) scores of some users at a time; minus infinity for the unknown item, and for
    those that the model can say nothing about.

    Args:
        model: The trained model.
        asked: Users and what they did.
        processor: The run's.
        transition_share: How much of the logarithm of an item's share is that of what followed
            such a history in training, rather than the model's; at 0 the model's scores as they
            are.
    """
    own = cast(Recommender, model)
    with evaluating(model):
        # Once for all users: towers compute them anew each time.
        vectors, biases = own.item_vectors().float(), own.item_biases().float()
        for begin in range(0, len(asked), AT_ONCE):
            some = asked[begin : begin + AT_ONCE]
            batch = encode_histories(some, processor, hides=own.hides_items)
            states = own.user_states(**_to(batch, device_of(model))).float()
            scores = states @ vectors.T + biases
            scores[:, NOBODY] = -torch.inf
            # Their vectors are as they were drawn at the start.
            if not own.places_untrained_items:
                scores[:, processor.trained_items + 1 :] = -torch.inf
            if transition_share:
                # Of all that they did, however little of it the model reads.
                rows = [processor.item_numbers(each.items) for each in some]
                counted = torch.from_numpy(log_shares(rows, processor)).to(scores.device)
                # Both as logarithms of shares of 1: popularity is in each, and counts once.
                own_share = 1.0 - transition_share
                scores = own_share * scores.log_softmax(-1) + transition_share * counted
            yield scores


def _to(batch: Batch, device: torch.device) -> dict[str, Any]:
    return {name: values.to(device) for name, values in batch.items()}


def top_items(
    model: nn.Module,
    asked: Sequence[UserHistory],
    processor: InteractionsProcessor,
    count: int,
    *,
    with_seen: bool = False,
    transition_share: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the items with the highest scores for each user, (U, K) numbers and scores, the best
    first; 0 where there are no more.

    Args:
        model: The trained model.
        asked: Users and what they did.
        processor: The run's.
        count: K.
        with_seen: Keep what a user has seen among what is recommended.
        transition_share: As of ``model_scores``.
    """
    found, values = [], []
    begin = 0
    for scores in model_scores(model, asked, processor, transition_share):
        if not with_seen:
            hide_seen(scores, asked[begin : begin + len(scores)], processor)
        # Exact: nothing is approximated, and only a part of the users is in memory.
        best = scores.topk(min(count, scores.shape[1] - 1))
        numbers = best.indices.masked_fill(best.values.isneginf(), NOBODY)
        found.append(numbers.cpu().numpy())
        values.append(best.values.double().cpu().numpy())
        begin += len(scores)
    if not found:
        return np.zeros((0, count), np.int64), np.zeros((0, count))
    return np.concatenate(found), np.concatenate(values)


def hide_seen(
    scores: Tensor, asked: Sequence[UserHistory], processor: InteractionsProcessor
) -> None:
    """Set the scores (U, N + 1) of what each user did before to minus infinity, in place."""
    rows, columns = [], []
    for n, each in enumerate(asked):
        seen = [processor.item_number(item) for item in each.items]
        rows += [n] * len(seen)
        columns += seen
    if rows:
        scores[torch.tensor(rows), torch.tensor(columns)] = -torch.inf


def explain(
    directions: Tensor,
    numbers: Sequence[int],
    asked: UserHistory,
    processor: InteractionsProcessor,
    count: int,
) -> list[list[str]]:
    """Return for each item what a user did that is nearest to it: the titles of the items whose
    vectors have the greatest cosine with its own, the nearest first.

    Args:
        directions: (N + 1, C), the vectors of all items at length 1: by products the popular would
            be near to everything.
        numbers: (K,) the items.
        asked: The user.
        processor: The run's.
        count: How many titles each.
    """
    history = torch.from_numpy(processor.item_numbers(asked.items))
    near = directions[torch.tensor(numbers, dtype=torch.int64)] @ directions[history].T  # (K, T)
    order = torch.argsort(near, dim=1, descending=True, stable=True).tolist()
    names = [processor.title(number) for number in history.tolist()]
    found = []
    for places in order:
        titles: dict[str, None] = {}
        # The first few of a long history; two items may have one title.
        for place in places:
            titles[names[place]] = None
            if len(titles) == count:
                break
        found.append(list(titles))
    return found
