"""What users did as rows of tensors, windows of it, and items that are drawn at random.

Shape legend: B examples, T positions, K drawn items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.recommendation import NOBODY, Choice, UserHistory
from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.values import IGNORED, Batch, Example
from groundup.processors.interactions import InteractionsProcessor, pad

__all__ = ["draw_items", "draw_window", "encode_examples", "hide_items", "hide_last"]

Numbers = NDArray[np.int64]
_DAY = 86_400.0  # seconds


def encode_examples(
    examples: Sequence[Example],
    processor: InteractionsProcessor,
    *,
    hides: bool,
    rated: bool,
    half_life: float | None = None,
) -> Batch:
    """Return a batch: ``users`` (B,), ``tokens`` and ``next_tokens`` (B, T), ``lengths`` (B,), the
    users' columns, and ``trained_items`` (B,).

    At position t ``tokens`` has what came before ``next_tokens``, 0 in front of a user's first
    item. What is only read, and padding, is not predicted: ``IGNORED``. Items of which nothing is
    known are left out.

    Args:
        examples: Of users with what they did.
        processor: The run's.
        hides: ``tokens`` has the items themselves, and the last one is hidden and predicted.
        rated: ``ratings`` (B, T) float32 are added, less the mean of training.
        half_life: ``weights`` (B, T) float32 are added: 1 at the end of training, half as much for
            each so many days before.

    Raises:
        DataError: If an example is of something else, or lacks its ratings.
    """
    rows = [_row(example, processor, rated=rated) for example in examples]
    batch = processor.encode_users([example.inputs for example in examples])
    batch |= pad([row[0] for row in rows])
    shape = batch["tokens"].shape
    targets = np.full(shape, IGNORED, np.int64)
    ratings = np.zeros(shape, np.float32)
    for n, (_, next_items, given) in enumerate(rows):
        targets[n, : len(next_items)] = next_items
        ratings[n, : len(given)] = given
    batch["next_tokens"] = torch.from_numpy(targets)
    if rated:
        batch["ratings"] = torch.from_numpy(ratings)
    if half_life is not None:
        batch["weights"] = _weights(examples, processor, half_life, shape)
    batch["trained_items"] = torch.full((len(examples),), processor.trained_items)
    return hide_last(batch, len(processor.items) + 1) if hides else batch


def _row(
    example: Example, processor: InteractionsProcessor, *, rated: bool
) -> tuple[Numbers, Numbers, NDArray[np.float32]]:
    """Return what is read, what is predicted at each of its positions, and how it was rated."""
    history, chosen = example.inputs, example.target
    if not isinstance(history, UserHistory) or not isinstance(chosen, Choice):
        kind = type(example.inputs).__name__
        raise DataError(
            example.origin, f"holds {kind}; allowed: what a user did", "Set data: interactions"
        )
    if rated and len(chosen.ratings) != len(chosen.items):
        raise DataError(
            example.origin,
            "has no ratings, which are predicted",
            "Name their column: data.rating, or set task.objective: softmax",
        )
    before = processor.item_numbers(history.items)
    numbers = np.array([processor.item_number(item) for item in chosen.items], dtype=np.int64)
    known = numbers != NOBODY
    given = np.zeros(len(numbers), np.float32)
    if rated:
        assert processor.ratings is not None
        given = np.array(chosen.ratings, dtype=np.float32) - np.float32(processor.ratings[0])
    # Of an item that nobody knows nothing can be learned.
    numbers, given = numbers[known], given[known]
    both = np.concatenate([before, numbers])
    targets = np.concatenate([np.full(len(before), IGNORED, np.int64), numbers])
    values = np.concatenate([np.zeros(len(before), np.float32), given])
    longest = processor.max_history
    processor.cut.add("histories", "items", f"max_history {longest}", [len(both)], longest)
    tokens = np.concatenate([np.zeros(1, np.int64), both[:-1]])
    if not len(both):  # of what was chosen nothing is known
        return tokens, np.array([IGNORED]), np.zeros(1, np.float32)
    return tokens[-longest:], targets[-longest:], values[-longest:]


def _weights(
    examples: Sequence[Example],
    processor: InteractionsProcessor,
    half_life: float,
    shape: torch.Size,
) -> Tensor:
    assert processor.latest is not None  # as the task has checked
    found = np.ones(shape, np.float32)
    for n, example in enumerate(examples):
        # As the items themselves: those of which nothing is known are left out.
        names = (*example.inputs.items, *example.target.items)
        known = [processor.item_number(name) != NOBODY for name in names]
        times = np.array(example.inputs.times)[known][-processor.max_history :]
        days = np.maximum(processor.latest - times, 0.0) / _DAY
        found[n, : len(days)] = 0.5 ** (days / half_life)
    return torch.from_numpy(found)


def hide_last(batch: Batch, hidden: int) -> Batch:
    """Return a batch with the items themselves as ``tokens``, the first that is to be predicted
    hidden and those after it left out; in training, where all are, the last one is hidden."""
    targets = batch["next_tokens"]
    wanted = targets != IGNORED
    last = batch["lengths"] - 1
    first = torch.where(wanted.any(1), wanted.to(torch.int64).argmax(1), last)
    rows = torch.arange(len(targets))
    # All of a row is chosen in training: then there is something to read before its last item.
    place = torch.where(wanted.sum(1) == batch["lengths"], last, first)
    # From what is before each item to the item itself.
    tokens = torch.zeros_like(batch["tokens"])
    tokens[:, :-1] = batch["tokens"][:, 1:]
    tokens[rows, place] = hidden
    tokens[torch.arange(tokens.shape[1])[None] > place[:, None]] = 0
    only = torch.full_like(targets, IGNORED)
    only[rows, place] = targets[rows, place]
    return batch | {"tokens": tokens, "next_tokens": only, "lengths": place + 1}


def hide_items(batch: Batch, samples: Numbers, seed: int, share: float, hidden: int) -> Batch:
    """Return a batch in which a share of each row's items is hidden and predicted, drawn by the
    sample's number; always one at least.

    Source:
        Sun et al., BERT4Rec, 2019 (arXiv:1904.06690), section 3.6. Departs from it: what is hidden
        is never replaced by another item; the last item of every row is hidden half of the time.
    """
    tokens = batch["tokens"].clone()
    targets = batch["next_tokens"].clone()
    length = tokens.shape[1]
    rows = torch.arange(len(tokens))
    last = batch["lengths"] - 1
    # As ``hide_last`` left it: the last item is in the targets.
    known = targets[rows, last]
    tokens[rows, last] = torch.where(known == IGNORED, tokens[rows, last], known)
    drawn = seeding.uniforms(seed, "hide items", samples, length + 2).T
    chosen = torch.from_numpy(drawn[:, :length] < share)
    # As in prediction, where the last place is the only one hidden.
    alone = torch.from_numpy(drawn[:, length] < 0.5)
    chosen[alone] = False
    inside = torch.arange(length)[None] < batch["lengths"][:, None]
    chosen &= inside & (tokens > 0)
    # A row that predicts nothing would be read for nothing.
    none = ~chosen.any(1)
    chosen[rows[none], last[none]] = known[none] != IGNORED
    wanted = torch.where(chosen, tokens, torch.full_like(tokens, IGNORED))
    tokens[chosen] = hidden
    return batch | {"tokens": tokens, "next_tokens": wanted}


def draw_items(
    processor: InteractionsProcessor, samples: Numbers, seed: int, count: int, power: float
) -> Batch:
    """Return ``drawn`` (B, K), items drawn by the samples' numbers from those of training, and
    ``log_expected`` (B, K): the logarithm of how often each is expected among the K.

    Args:
        processor: The run's.
        samples: (B,) numbers of samples.
        seed: The run's.
        count: K.
        power: Of how often items were chosen: 0 draws all alike, 1 as often as they were.
    """
    weights = processor.popularity[1 : processor.trained_items + 1].astype(np.float64) ** power
    share = weights / weights.sum()
    uniform = seeding.uniforms(seed, "draw items", samples, count).T
    places = np.searchsorted(np.cumsum(share), uniform, side="right")
    # Rounding may leave the sum of the shares below 1.
    places = np.minimum(places, len(share) - 1)
    expected = np.log(share[places] * count).astype(np.float32)
    return {"drawn": torch.from_numpy(places + 1), "log_expected": torch.from_numpy(expected)}


def draw_window(
    example: Example, sample: int, longest: int, seed: int, *, shuffle_ties: bool
) -> Example:
    """Return a training example with a part of what a user did, drawn by the sample's number.

    Args:
        example: With nothing before what is chosen.
        sample: The sample's number.
        longest: Items that are kept at most.
        seed: The run's.
        shuffle_ties: Put what happened at one time in an order drawn at random, because the order
            of the rows says nothing.
    """
    chosen: Choice = example.target
    history: UserHistory = example.inputs
    count = len(chosen.items)
    draws = np.random.default_rng(seeding.key(seed, "window", sample))
    order = np.arange(count)
    if shuffle_ties and history.times:
        order = np.lexsort((draws.random(count), np.array(history.times)))
    # Any part is as likely: the last items of a long history would else be all that is learned.
    if count > longest:
        begin = int(draws.integers(0, count - longest + 1))
        order = order[begin : begin + longest]
    places = order.tolist()
    items = tuple(chosen.items[n] for n in places)
    ratings = tuple(chosen.ratings[n] for n in places) if chosen.ratings else ()
    times = tuple(history.times[n] for n in places) if history.times else ()
    return replace(example, inputs=replace(history, times=times), target=Choice(items, ratings))
