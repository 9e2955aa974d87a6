"""Ratings as a recommender predicts them, and how far off they are, next to the biases alone.

Legend: R ratings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.recommendation import NOBODY, UserHistory
from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Evaluation, Example, Table
from groundup.generation.scoring import device_of, evaluating
from groundup.metrics.ranking import interval
from groundup.processors.interactions import InteractionsProcessor
from groundup.tasks.recommend.baselines import Biases
from groundup.tasks.recommend.scoring import AT_ONCE, encode_histories

__all__ = ["evaluate_ratings", "predict_ratings"]

Floats = NDArray[np.float64]


def predict_ratings(
    model: nn.Module,
    asked: Sequence[UserHistory],
    items: Sequence[Sequence[str]],
    processor: InteractionsProcessor,
) -> list[Floats]:
    """Return what each user would rate each of some items, within the range of training's ratings.

    Of an item that training has not seen, and a model that cannot place it, the biases alone are
    known: of an item of which nothing is known the user's mean.
    """
    assert processor.ratings is not None
    mean, low, high = processor.ratings
    found: list[Floats] = []
    with evaluating(model):
        for begin in range(0, len(asked), AT_ONCE):
            some = asked[begin : begin + AT_ONCE]
            wanted = items[begin : begin + AT_ONCE]
            numbers = [[processor.item_number(item) for item in own] for own in wanted]
            # Padded with the unknown item, whose scores are cut off again.
            longest = max(map(len, numbers), default=1)
            candidates = torch.tensor([own + [NOBODY] * (longest - len(own)) for own in numbers])
            own_model = cast(Any, model)
            batch = encode_histories(some, processor, hides=own_model.hides_items)
            device = device_of(model)
            batch = {name: values.to(device) for name, values in batch.items()}
            scores = model(**batch, candidates=candidates.to(device)).double().cpu()
            # The state at the end of the history has seen all of it.
            if scores.dim() == 3:
                scores = scores[torch.arange(len(scores)), batch["lengths"].cpu() - 1]
            values = (scores + mean).clamp(low, high).numpy()
            found += [row[: len(own)] for row, own in zip(values, numbers, strict=True)]
    return found


def evaluate_ratings(context: EvaluationContext) -> Evaluation:
    """Predict the held-out ratings, next to biases fitted to the same training split.

    Intervals are of 95%, by resamples of users.
    """
    processor: InteractionsProcessor = context.processor
    examples = list(context.examples(context.held_out))
    context.progress(f"predicting the ratings of {len(examples):,} users")
    asked = [example.inputs for example in examples]
    items = [example.target.items for example in examples]
    own = predict_ratings(context.model, asked, items, processor)
    true = [np.array(example.target.ratings) for example in examples]
    biases = _biases(context.examples("train"), processor)
    assert processor.ratings is not None
    mean, low, high = processor.ratings
    # The mean shows what there is to explain at all.
    methods = {
        "this run": own,
        "biases of users and items": [
            _of_biases(biases, example, processor).clip(low, high) for example in examples
        ],
        "the mean": [np.full(len(values), mean) for values in true],
    }
    rows: list[tuple[Any, ...]] = []
    metrics = {
        "held_out_users": float(len(examples)),
        "held_out_ratings": float(sum(map(len, true))),
    }
    for name, predicted in methods.items():
        squares = np.array([((a - b) ** 2).sum() for a, b in zip(predicted, true, strict=True)])
        errors = np.array([np.abs(a - b).sum() for a, b in zip(predicted, true, strict=True)])
        # A user with more ratings counts more, as in the mean over ratings.
        counts = np.array([len(values) for values in true], dtype=np.float64)
        rmse = float(np.sqrt(squares.sum() / counts.sum()))
        mae = float(errors.sum() / counts.sum())
        # Of sums over users, so that a user's ratings stay together.
        spread = np.sqrt(interval(squares * len(counts) / counts.sum(), context.seed))
        rows.append((name, f"{rmse:.4f} ({spread[0]:.4f} to {spread[1]:.4f})", round(mae, 4)))
        prefix = {"this run": "", "the mean": "baseline_mean_"}.get(name, "baseline_biases_")
        metrics |= {f"{prefix}rmse": rmse, f"{prefix}mae": mae}
        if not prefix:
            metrics |= {"rmse_low_95": float(spread[0]), "rmse_high_95": float(spread[1])}
    note = (
        "In brackets: 95% of resamples of users. Predictions are kept within the range of the"
        " training ratings. Biases are fitted to the same training split."
    )
    return Evaluation(metrics, [Table("Held-out ratings", ("method", "RMSE", "MAE"), rows, note)])


def _biases(examples: Iterable[Example], processor: InteractionsProcessor) -> Biases:
    users: list[int] = []
    items: list[int] = []
    ratings: list[float] = []
    for example in examples:
        users += [processor.user_number(example.inputs.user)] * len(example.target.items)
        items += [processor.item_number(item) for item in example.target.items]
        ratings += example.target.ratings
    return Biases(np.array(users), np.array(items), np.array(ratings))


def _of_biases(biases: Biases, example: Example, processor: InteractionsProcessor) -> Floats:
    items = np.array([processor.item_number(item) for item in example.target.items], dtype=np.int64)
    users = np.full(len(items), processor.user_number(example.inputs.user))
    return biases.predict(users, items)
