"""What fine-tuning did: the base model and the fine-tuned one, on what the base had learned and on
what is new.

Legend: N examples, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.classifier_models import Features
from groundup.contracts.processors import LabelProcessor
from groundup.contracts.tasks import EvaluationContext
from groundup.core.errors import GroundupError
from groundup.core.values import Example, Split, Table
from groundup.media.table_values import as_category
from groundup.tasks.shared.model_outputs import model_outputs

__all__ = ["Score", "compare_before_and_after", "nearest_neighbour_accuracy"]

Score = Callable[[nn.Module, Any, Sequence[Example]], float]
_AT_ONCE = 1024
# Odd and few: with equal votes, more neighbours reach beyond a small class.
_NEIGHBOURS = 5
_MOST = 5000  # examples whose neighbours are looked for, and among which
_COLUMNS = ("data", "measure", "examples", "before", "after", "change")


@dataclass(frozen=True)
class _Side:
    """One set of data: the old, which the base run learned, or the new.

    Attributes:
        held_out: Held-out examples that neither run was trained on.
        known: Training examples.
        processor: Of the run whose data it is.
        left_out: How many held-out examples were left out because one of the runs was trained on
            them.
    """

    name: str
    held_out: list[Example]
    known: list[Example]
    processor: LabelProcessor
    left_out: int


def compare_before_and_after(context: EvaluationContext, measure: str, score: Score) -> list[Table]:
    """Return a table of what fine-tuning won on the new data and lost on the old; none where
    nothing was fine-tuned.

    A model is evaluated directly where it knows every class of the data. Where the fine-tuned model
    was given another head, it cannot be asked about old classes nor the base about new ones; then
    the features that the heads read are compared: how often a held-out example has the class of
    most of its nearest neighbours among training examples. Examples that either run was trained on
    are left out.

    Args:
        context: With ``base`` and ``base_examples`` if the run was fine-tuned.
        measure: What ``score`` returns, in words.
        score: Evaluates a model with its processor on labelled examples.

    Source:
        Forgetting as the loss on earlier data: Chaudhry et al., 2018 (arXiv:1801.10112), section 3.
        Nearest neighbours of features as their measure: Wu et al., 2018 (arXiv:1805.01978),
        section 3.4, with equal votes.
    """
    if (
        context.base is None
        or context.base_examples is None
        or not isinstance(context.base[1], LabelProcessor)
    ):
        return []
    context.progress("comparing with the run it was fine-tuned from, on old data and new")
    try:
        sides = _read_sides(context, context.base_examples, context.base[1])
    except GroundupError as error:
        note = (
            "The data of the run it was fine-tuned from cannot be read, so nothing is known of"
            f" forgetting: {error}"
        )
        return [Table("Before and after", _COLUMNS, [], note)]
    models = (context.base, (context.model, context.processor))
    # Both models on both data: what was won is on the new, what was lost on the old.
    rows: list[tuple[str | float | int | None, ...]] = []
    for side in sides:
        values: list[float | None] = []
        for model, processor in models:
            asks = side.held_out and _can_answer(processor, side)
            values.append(score(model, processor, side.held_out) if asks else None)
        rows.append(_row(side, measure, values))
    asked = all(_can_answer(processor, side) for side in sides for _, processor in models)
    # A head that was replaced says nothing of old classes, but the features below it may still tell
    # them apart.
    if not asked and all(side.processor.targets.kind == "class" for side in sides):
        for side in sides:
            found = [
                nearest_neighbour_accuracy(*pair, side.known, side.held_out) for pair in models
            ]
            rows.append(_row(side, "accuracy of nearest neighbours in the features", found))
    return [Table("Before and after", _COLUMNS, rows, _say_in_words(rows, sides, asked))]


def _read_sides(
    context: EvaluationContext,
    base_examples: Callable[[Split], Iterable[Any]],
    base_processor: LabelProcessor,
) -> list[_Side]:
    old = (base_examples, context.base_held_out, base_processor)
    new = (context.examples, context.held_out, context.processor)
    read = {
        name: (list(examples("train")), list(examples(held_out)), processor)
        for name, (examples, held_out, processor) in {"old": old, "new": new}.items()
    }
    # One data set's held-out examples may be the other's training examples, as where a run goes on
    # with more of the same data: they would look remembered.
    trained_on = {_digest(example) for known, _, _ in read.values() for example in known}
    sides = []
    for name, (known, held_out, processor) in read.items():
        unseen = [example for example in held_out if _digest(example) not in trained_on]
        left_out = len(held_out) - len(unseen)
        sides.append(_Side(name, _thin_out(unseen), _thin_out(known), processor, left_out))
    return sides


def _digest(example: Example) -> bytes:
    """Return what two examples have in common exactly if their inputs are the same."""
    inputs = example.inputs
    # By content: the same picture may have another name in the other data set.
    content = inputs.tobytes() if isinstance(inputs, np.ndarray) else repr(inputs).encode()
    return blake2b(content, digest_size=16).digest()


def _thin_out(examples: list[Example]) -> list[Example]:
    """Return at most ``_MOST`` of the examples, taken at even distances: files may be sorted by
    class."""
    step = math.ceil(len(examples) / _MOST) or 1
    return examples[::step]


def _can_answer(processor: LabelProcessor, side: _Side) -> bool:
    """Whether a model with this processor knows every class of this data, or predicts as many
    numbers."""
    own = processor.targets
    its = side.processor.targets
    if own.kind != its.kind:
        return False
    return set(its.labels) <= set(own.labels) if its.labels else own.outputs == its.outputs


def _row(
    side: _Side, measure: str, values: list[float | None]
) -> tuple[str | float | int | None, ...]:
    before, after = values
    change = None
    if before is not None and after is not None:
        change = after - before
    cells = [None if value is None else float(f"{value:.4g}") for value in (*values, change)]
    return (side.name, measure, len(side.held_out), *cells)


def _say_in_words(rows: list[tuple[Any, ...]], sides: list[_Side], asked: bool) -> str:
    parts = []
    for side in sides:
        both = [row for row in rows if row[0] == side.name and row[5] is not None]
        if both:
            _, measure, _, before, after, _ = both[0]
            parts.append(
                f"On {side.name} data the {measure} went from {before:.4g} to {after:.4g}."
            )
        else:
            parts.append(f"On {side.name} data before and after cannot be compared.")
    if not asked:
        parts.append("The head is not the base's: what it forgot shows in the features alone.")
    if left_out := sum(side.left_out for side in sides):
        parts.append(
            f"Left out: {left_out} held-out examples that one of the two runs was trained on."
        )
    return " ".join(parts)


def nearest_neighbour_accuracy(
    model: nn.Module,
    processor: LabelProcessor,
    known: Sequence[Example],
    held_out: Sequence[Example],
) -> float | None:
    """Return the share of held-out examples whose class most of their nearest known examples have.

    Nearness is the cosine of the model's features; of equally frequent classes the nearer one wins.

    Returns:
        None where the model has no ``features``, or there are no examples.
    """
    if not isinstance(model, Features) or not known or not held_out:
        return None
    labels = sorted({as_category(example.target) for example in (*known, *held_out)})
    classes = torch.tensor([labels.index(as_category(example.target)) for example in known])
    true = torch.tensor([labels.index(as_category(example.target)) for example in held_out])
    among = _normalised_features(model, model.features, processor, known)
    asked = _normalised_features(model, model.features, processor, held_out)
    right = 0
    for rows, expected in zip(
        torch.split(asked, _AT_ONCE), torch.split(true, _AT_ONCE), strict=True
    ):
        nearness, nearest = (rows @ among.T).topk(min(_NEIGHBOURS, len(known)), sorted=True)
        votes = torch.zeros(len(rows), len(labels), dtype=torch.float64)
        # Each neighbour has one vote; the little more that nearness gives only breaks ties.
        votes.scatter_add_(1, classes[nearest], 1 + 1e-6 * nearness.double())
        right += int((votes.argmax(1) == expected).sum())
    return right / len(held_out)


def _normalised_features(
    model: nn.Module,
    features: Callable[..., Tensor],
    processor: LabelProcessor,
    examples: Sequence[Example],
) -> Tensor:
    """Return (N, F) of length 1 on the CPU."""
    inputs = [example.inputs for example in examples]
    parts = model_outputs(model, inputs, processor, features)
    return torch.cat([F.normalize(part.flatten(1).float(), dim=1).cpu() for part in parts])
