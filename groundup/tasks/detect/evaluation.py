"""A detector on held-out pictures: mAP by the rules of COCO, what it gets wrong, and what trivial
answers reach.

Legend: N pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from groundup.contracts.detection import Boxes
from groundup.contracts.tasks import EvaluationContext
from groundup.core import seeding
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.metrics.detection import (
    DetectionScores,
    FoundBoxes,
    TrueBoxes,
    evaluate_boxes,
)
from groundup.processors.boxes import BoxesProcessor
from groundup.tasks.detect.baselines import trivial_answers
from groundup.tasks.detect.detections import Choice, Found
from groundup.tasks.detect.mistakes import count_mistakes, draw_mistakes
from groundup.tasks.detect.prediction import find_in

__all__ = ["evaluate_detector", "score_examples"]

# For mAP also what is hardly probable: its rules ask for precision at every recall.
_LEAST = 0.005
_TRAINING_SAMPLE = 500
_CLASSES_DRAWN = 30
_CURVES_DRAWN = 8
# Training pictures that are few enough to be learned by heart, and what is reached then.
_FEW = 16
_BY_HEART = 0.9


class _Finds(Protocol):
    """The settings of the task that are read here."""

    @property
    def threshold(self) -> float: ...

    @property
    def max_detections(self) -> int: ...

    @property
    def nms(self) -> float: ...

    @property
    def mask_padding(self) -> bool: ...


def score_examples(
    task: _Finds, model: nn.Module, examples: Sequence[Example], processor: BoxesProcessor
) -> tuple[DetectionScores, list[Found]]:
    """Return how good what a model finds in examples is, and what it finds."""
    choice = Choice(_LEAST, task.max_detections, task.nms)
    pictures = [example.inputs for example in examples]
    found = find_in(model, pictures, processor, choice, masked=task.mask_padding)
    return _score(task, examples, [_as_arrays(each) for each in found], processor), found


def _score(
    task: _Finds,
    examples: Sequence[Example],
    found: Sequence[FoundBoxes],
    processor: BoxesProcessor,
) -> DetectionScores:
    true = [_true_boxes(example.target, processor) for example in examples]
    return evaluate_boxes(true, found, processor.labels, task.threshold)


def _true_boxes(target: Boxes, processor: BoxesProcessor) -> TrueBoxes:
    """Return an example's boxes with the numbers of their classes."""
    labels = processor.targets.encode([target])[0, : len(target.labels)].numpy()
    return TrueBoxes(target.corners, labels, target.crowd, target.areas)


def _as_arrays(found: Found) -> FoundBoxes:
    return FoundBoxes(*(values.numpy() for values in found))


def evaluate_detector(task: _Finds, context: EvaluationContext) -> Evaluation:
    """Evaluate a model on the held-out pictures, and for comparison on training pictures, at most
    500.

    ``mean_box_map`` is what a box of the mean place and size with the commonest class reaches in
    every picture, and ``nearest_picture_map`` the boxes of the training picture that is most alike.
    """
    examples = list(context.examples(context.held_out))
    processor = context.processor
    context.progress(f"looking for things in {len(examples)} held-out pictures")
    scores, found = score_examples(task, context.model, examples, processor)
    # Counts first: a mean over ten pictures is read otherwise than one over a thousand.
    metrics = {"held_out_pictures": float(len(examples)), **scores.metrics}
    tables = [_class_table(scores, processor.labels)]
    figures = [_curves(scores, processor.labels), _matrix(scores, processor.labels)]
    # Mistakes are of what a user is shown; mAP is of all that was found.
    shown = [_above(each, task.threshold) for each in found]
    true = [_true_boxes(example.target, processor) for example in examples]
    mistakes = count_mistakes(true, shown)
    tables.append(mistakes.table())
    figures.append(draw_mistakes(mistakes, examples, true, shown, processor))
    trained = list(context.examples("train"))
    if trained:  # of pretrained weights nobody knows them
        learned = _score_training_pictures(task, context, trained)
        metrics |= learned
        tables.append(_compare_with_answers(task, context, trained, examples, metrics))
        if len(trained) <= _FEW:
            tables.append(_by_heart(len(trained), learned["training_map"]))
    return Evaluation(metrics, tables, figures)


def _above(found: Found, threshold: float) -> FoundBoxes:
    keep = found.scores >= threshold
    return FoundBoxes(*(values[keep].numpy() for values in found))


def _score_training_pictures(
    task: _Finds, context: EvaluationContext, trained: Sequence[Example]
) -> dict[str, float]:
    """Return mAP on a keyed sample of the training split: far above the held-out one, the model
    knows its pictures by heart."""
    order = torch.randperm(
        len(trained), generator=seeding.generator(context.seed, "training sample")
    )
    chosen = [trained[number] for number in order[:_TRAINING_SAMPLE].tolist()]
    context.progress(f"looking for things in {len(chosen)} training pictures")
    scores, _ = score_examples(task, context.model, chosen, context.processor)
    return {
        "training_pictures_evaluated": float(len(chosen)),
        "training_map": scores.metrics["map"],
    }


def _compare_with_answers(
    task: _Finds,
    context: EvaluationContext,
    trained: Sequence[Example],
    examples: Sequence[Example],
    metrics: dict[str, float],
) -> Table:
    """Return a table of the model next to answers that look at no picture, or at one; their mAP is
    added to the metrics."""
    rows: list[tuple[str | float | int | None, ...]] = [
        ("the model", round(metrics["map"], 4), round(metrics["map_50"], 4))
    ]
    answers = trivial_answers(trained, examples, context.processor, context.seed)
    for name, (words, found) in answers.items():
        scores = _score(task, examples, found, context.processor)
        metrics[f"{name}_map"] = scores.metrics["map"]
        rows.append((words, round(scores.metrics["map"], 4), round(scores.metrics["map_50"], 4)))
    return Table("Next to trivial answers", ("answer", "map", "map_50"), rows)


def _by_heart(count: int, reached: float) -> Table:
    verdict = (
        f"mAP {reached:.3f}: pictures, boxes, classes and model fit each other. Train on all of"
        " the data"
    )
    if reached < _BY_HEART:
        verdict = (
            f"mAP {reached:.3f}, but {_BY_HEART} or more is expected of so few: train for more"
            " steps without augmentation; if it stays low, look at the boxes with data inspect"
        )
    return Table("Learned by heart", ("training pictures", "verdict"), [(count, verdict)])


# ------------------------------------------------------------------------------- tables and figures
def _class_table(scores: DetectionScores, labels: Sequence[str]) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = [
        (label, *(_rounded(value) for value in row[:3]), row[3])
        for label, row in zip(labels, scores.per_class, strict=True)
    ]
    columns = ("class", "map", "map_50", "recall", "boxes")
    return Table("Classes", columns, rows, printed=len(labels) <= _CLASSES_DRAWN)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _curves(scores: DetectionScores, labels: Sequence[str]) -> Figure:
    """Return precision over recall, of the classes with the most boxes and of all."""
    recalls = np.linspace(0.0, 1.0, scores.curves.shape[1])
    known = [number for number, row in enumerate(scores.per_class) if row[3]]
    most = sorted(known, key=lambda number: -scores.per_class[number][3])[:_CURVES_DRAWN]
    series: list[dict[str, Any]] = []
    if known:
        mean = np.nanmean(scores.curves[known], 0)
        series.append(_series("all classes", recalls, mean))
    series += [_series(labels[n], recalls, scores.curves[n]) for n in sorted(most)]
    note = "At an overlap of 0.5; the area under a curve is the class's average precision."
    if len(most) < len(known):
        note += f" The {len(most)} classes with the most boxes, of {len(known)}."
    content = {"x": "recall", "y": "precision", "series": series}
    return Figure("lines", "Precision and recall", content, note)


def _series(name: str, x: Any, y: Any) -> dict[str, Any]:
    # A hundred places say no more than fifty.
    points = [[round(float(a), 4), round(float(b), 4)] for a, b in zip(x, y, strict=True)]
    return {"name": name, "points": points[::2]}


def _matrix(scores: DetectionScores, labels: Sequence[str]) -> Figure:
    """Return the confusion matrix with what was missed and what is not there, of the classes with
    the most mistakes where there are too many to draw."""
    confusion = scores.confusion
    wrong = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    shown = np.sort(np.argsort(-wrong[:-1], kind="stable")[:_CLASSES_DRAWN])
    note = (
        "Rows are true classes, columns what was found there at an overlap of 0.5; in the last"
        " row nothing is there, in the last column nothing was found."
    )
    if len(shown) < len(labels):
        note += f" The {len(shown)} classes of {len(labels)} with the most mistakes."
    places = [*shown.tolist(), len(labels)]
    counts = confusion[np.ix_(places, places)].tolist()
    names = [*(labels[place] for place in shown), "nothing"]
    return Figure("matrix", "Confusion matrix", {"labels": names, "counts": counts}, note)
