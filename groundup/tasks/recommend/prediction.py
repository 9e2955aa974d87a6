"""What is recommended to a user, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch.nn.functional as F
from torch import nn

from groundup.contracts.recommendation import NOBODY, Recommender
from groundup.contracts.tasks import PREDICTION
from groundup.core.errors import DataError, did_you_mean
from groundup.generation.scoring import evaluating
from groundup.media.table_values import as_category
from groundup.processors.interactions import InteractionsProcessor
from groundup.tasks.recommend.ratings import predict_ratings
from groundup.tasks.recommend.scoring import explain, top_items

__all__ = ["Recommends", "as_columns", "in_lines", "recommend"]

_REASONS = 3


class Recommends(Protocol):
    """The task, as far as it predicts."""

    @property
    def objective(self) -> str: ...

    @property
    def mask_seen(self) -> bool: ...

    @property
    def transition_share(self) -> float: ...


def recommend(
    task: Recommends,
    model: nn.Module,
    inputs: Sequence[Any],
    processor: InteractionsProcessor,
    count: int,
) -> list[Any]:
    """Return for each question the items with the highest scores, or the rating of the item that it
    names.

    Raises:
        DataError: If nothing is known of a user or an item.
    """
    inputs = [_parse(each) for each in inputs]
    asked = [processor.as_history(each) for each in inputs]
    # Of all questions at once: a pass over the items costs as much for one user as for many.
    numbers, scores = top_items(
        model,
        asked,
        processor,
        count,
        with_seen=not task.mask_seen,
        transition_share=task.transition_share,
    )
    with evaluating(model):
        vectors = cast(Recommender, model).item_vectors().float().cpu()
        directions = F.normalize(vectors, dim=-1)
    # What was learned is how far ratings are from their mean.
    mean = 0.0
    if task.objective == "ratings":
        assert processor.ratings is not None
        mean = processor.ratings[0]
    found: list[Any] = []
    for n, given in enumerate(inputs):
        item = _item_of(given)
        if item:
            found.append(_rate(task, model, asked[n], item, processor))
            continue
        own = [number for number in numbers[n].tolist() if number != NOBODY]
        reasons = explain(directions, own, asked[n], processor, _REASONS)
        found.append(
            [
                {
                    "item": processor.items[number - 1],
                    "title": processor.title(number),
                    "score": round(score + mean, 4),
                    "because": because,
                }
                # Those that are no items are at the end.
                for number, score, because in zip(own, scores[n].tolist(), reasons, strict=False)
            ]
        )
    return found


def as_columns(predicted: Any) -> dict[str, Any]:
    """Return a prediction by the names of columns of a file."""
    if isinstance(predicted, Mapping):
        return dict(predicted)
    return {
        PREDICTION: [each["item"] for each in predicted],
        "titles": [each["title"] for each in predicted],
        "scores": [each["score"] for each in predicted],
    }


def in_lines(predicted: Any) -> list[str]:
    """Return a prediction in lines for people: an item each, with its title, score and reasons."""
    # A rating is one answer and no list.
    if isinstance(predicted, Mapping):
        return [f"{predicted['title']}: {predicted['rating']:.2f}"]
    lines = []
    for place, each in enumerate(predicted, 1):
        why = f"  (near to: {'; '.join(each['because'])})" if each["because"] else ""
        lines.append(f"{place:>3}  {each['title']}  {each['score']:.3f}{why}")
    return lines


def _parse(given: Any) -> Any:
    """Return a question that is written as a JSON object as a dictionary."""
    if not isinstance(given, str) or not given.lstrip().startswith("{"):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        problem = f"is no JSON: {error}"
        raise DataError(given[:40], problem, "Write a user's id, or a JSON object") from None


def _item_of(given: Any) -> str:
    return as_category(given["item"]) if isinstance(given, Mapping) and "item" in given else ""


def _rate(
    task: Recommends, model: nn.Module, asked: Any, item: str, processor: InteractionsProcessor
) -> dict[str, Any]:
    if task.objective != "ratings":
        problem = "asks for a rating, but the run has learned what is chosen"
        raise DataError(f"item {item!r}", problem, "Leave item out, or train objective: ratings")
    number = processor.item_number(item)
    if number == NOBODY:
        hint = did_you_mean(item, processor.items)
        problem = f"is not one of the {len(processor.items):,} items of the data; {hint}".strip()
        raise DataError(f"item {item!r}", problem, "Name one of them")
    # The same as evaluation does, kept within the range of ratings.
    rating = float(predict_ratings(model, [asked], [[item]], processor)[0][0])
    return {"item": item, "title": processor.title(number), "rating": round(rating, 4)}
