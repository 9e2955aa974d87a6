"""A classifier on held-out examples: measures, tables, and pictures of what it gets wrong.

Legend: N examples, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.contracts.processors import LabelProcessor, Pictures
from groundup.contracts.tasks import EvaluationContext
from groundup.core import seeding
from groundup.core.values import Evaluation, Example, Figure, Table
from groundup.media.png import data_uri
from groundup.metrics.calibration import (
    Reliability,
    fit_temperature,
    halves,
    probabilities_of,
    reliability,
)
from groundup.metrics.classification import (
    ClassificationScores,
    evaluate_classes,
    evaluate_labels,
    has_label,
)
from groundup.metrics.ordinal import evaluate_order
from groundup.tasks.shared.model_outputs import model_outputs

__all__ = ["evaluate_classifier", "outputs_of"]

Floats = NDArray[np.float64]
_SHOWN = 10
_PICTURES = 24
_CLASSES_DRAWN = 30
_TRAINING_SAMPLE = 2_000  # the 95% interval of an accuracy is then 2 percent points wide each way
# Fifteen bins of twenty examples say nothing yet; the temperature is one number, and settles
# sooner.
_ENOUGH = 40  # examples from which half of them can say something about calibration
_PIXELS = 96


def outputs_of(model: nn.Module, inputs: Sequence[Any], processor: LabelProcessor) -> Floats:
    """Return the model's outputs (N, K), before softmax or sigmoid."""
    parts = model_outputs(model, inputs, processor)
    return torch.cat([part.double().cpu() for part in parts]).numpy()


def evaluate_classifier(
    context: EvaluationContext, labels: Literal["single", "ordinal", "multi_label"]
) -> Evaluation:
    """Evaluate a model on the held-out examples, and for comparison on as many training examples,
    at most 2,000.

    ``temperature`` is fitted on one keyed half of the held-out examples; both calibration errors
    ``other_half_calibration_error`` and ``..._with_temperature`` are of the other half, which had
    no say in it. ``baseline_accuracy`` is what always guessing the training split's commonest class
    reaches.

    Where classes have an order, also by how many classes predictions are off, and what always
    guessing the middle class of the training split reaches.

    Args:
        context: What to evaluate.
        labels: Whether an example has one class, one of classes with an order, or several labels.
    """
    several = labels == "multi_label"
    examples = list(context.examples(context.held_out))
    processor = context.processor
    context.progress(f"classifying {len(examples)} held-out examples")
    outputs = outputs_of(context.model, [example.inputs for example in examples], processor)
    chances = probabilities_of(outputs, several=several)
    true = processor.targets.encode([example.target for example in examples]).long().numpy()
    metrics = {"held_out_examples": float(len(examples))}
    if several:
        found = evaluate_labels(chances, true, context.seed)
        metrics |= found.metrics
        mistakes = _find_wrong_decisions(chances, true, processor.labels)
        tables = [_label_table(found, processor.labels)]
        figures = []
    else:
        found = evaluate_classes(chances, true, context.seed)
        metrics |= {**found.metrics, "baseline_accuracy": _guess_commonest(processor, true)}
        mistakes = _find_wrong_classes(chances, true, processor.labels)
        tables = [_confusion_table(found, processor.labels), _class_table(found, processor.labels)]
        figures = [_matrix(found, processor.labels)]
    if labels == "ordinal":
        metrics |= _score_order(found, processor, true, context.seed)
    metrics |= _score_training_examples(context, len(examples), several=several)
    metrics |= _calibrate(outputs, true, context.seed, several=several)
    figures += [_diagram(found.reliability, metrics), _gallery(examples, mistakes, processor)]
    return Evaluation(metrics, [*tables, _mistake_table(examples, mistakes)], figures)


# ----------------------------------------------------------------------------------------- measures
def _guess_commonest(processor: LabelProcessor, true: NDArray[np.int64]) -> float:
    """Return the accuracy of always guessing the commonest class of the training split."""
    return float((true == int(np.argmax(_counts(processor, true)))).mean())


def _counts(processor: LabelProcessor, true: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (K,) examples of each class in the training split, or here where nobody counted them
    there."""
    # Processors of older runs did not count.
    known = processor.targets.counts
    return np.asarray(known or np.bincount(true, minlength=processor.outputs), np.int64)


def _score_order(
    found: ClassificationScores, processor: LabelProcessor, true: NDArray[np.int64], seed: int
) -> dict[str, float]:
    """Return how far predictions are off in classes, next to always guessing the middle class of
    the training split."""
    # The median of the training split: no other constant is off by fewer classes there.
    share = _counts(processor, true).cumsum()
    middle = int(np.searchsorted(share, share[-1] / 2))
    baseline = float(np.abs(true - middle).mean())
    return {**evaluate_order(found.confusion, seed), "baseline_mean_absolute_error": baseline}


def _score_training_examples(
    context: EvaluationContext, size: int, *, several: bool
) -> dict[str, float]:
    """Return the accuracy on a keyed sample of the training split, without dropout.

    Its distance from the held-out accuracy shows overfitting; the training loss, taken with
    dropout and augmentation, does not.
    """
    every = list(context.examples("train"))
    if not every:  # of pretrained weights nobody knows them
        return {}
    order = torch.randperm(len(every), generator=seeding.generator(context.seed, "training sample"))
    chosen = [every[number] for number in order[: min(size, _TRAINING_SAMPLE)].tolist()]
    context.progress(f"classifying {len(chosen)} training examples")
    outputs = outputs_of(context.model, [example.inputs for example in chosen], context.processor)
    true = context.processor.targets.encode([example.target for example in chosen]).numpy()
    found = {"training_examples_evaluated": float(len(chosen))}
    if several:
        right = has_label(probabilities_of(outputs, several=True)) == (true > 0)
        return {**found, "training_subset_accuracy": float(right.all(1).mean())}
    return {**found, "training_accuracy": float((outputs.argmax(1) == true).mean())}


def _calibrate(
    outputs: Floats, true: NDArray[np.int64], seed: int, *, several: bool
) -> dict[str, float]:
    """Return the temperature that fits one half, and what it does to the error of the other."""
    if len(outputs) < _ENOUGH:
        return {}
    # Fitted and measured on the same examples, any temperature would look well calibrated.
    fitted = halves(len(outputs), seed)
    temperature = fit_temperature(outputs[fitted], true[fitted], several=several)
    errors = {}
    for name, value in (("", 1.0), ("_with_temperature", temperature)):
        chances = probabilities_of(outputs[~fitted], several=several, temperature=value)
        if several:
            curve = reliability(chances.ravel(), true[~fitted].ravel() > 0)
        else:
            curve = reliability(chances.max(1), chances.argmax(1) == true[~fitted])
        errors[f"other_half_calibration_error{name}"] = curve.expected_error
    return {"temperature": temperature, **errors}


# ------------------------------------------------------------------------------------------- tables
def _class_table(found: ClassificationScores, labels: Sequence[str]) -> Table:
    rows = [
        (label, *map(_rounded, row[:3]), row[3])
        for label, row in zip(labels, found.per_class, strict=True)
    ]
    return Table(
        "Classes", ("class", "precision", "recall", "F1", "examples"), list(rows), printed=False
    )


def _label_table(found: ClassificationScores, labels: Sequence[str]) -> Table:
    rows = [
        (label, *map(_rounded, row[:3]), row[3])
        for label, row in zip(labels, found.per_class, strict=True)
    ]
    return Table("Labels", ("label", "average precision", "AUROC", "F1", "examples"), list(rows))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _confusion_table(found: ClassificationScores, labels: Sequence[str]) -> Table:
    # The diagonal is what was right.
    wrong = found.confusion * (1 - np.eye(len(labels), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_SHOWN]
    cells = [divmod(int(place), len(labels)) for place in order]
    rows = [
        (labels[i], labels[j], int(wrong[i, j]), int(found.confusion[i].sum()))
        for i, j in cells
        if wrong[i, j]
    ]
    return Table(
        "Most confused",
        ("true class", "predicted", "times", "examples of the true class"),
        list(rows),
    )


# ----------------------------------------------------------------------------------------- mistakes
Mistake = tuple[int, str, str, float]  # example, true, predicted, probability


def _find_wrong_classes(
    chances: Floats, true: NDArray[np.int64], labels: Sequence[str]
) -> list[Mistake]:
    """Return the mistakes that the model was surest of, the worst first."""
    predicted = chances.argmax(1)
    sure = chances.max(1)
    wrong = np.flatnonzero(predicted != true)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:_PICTURES]
    return [(int(i), labels[true[i]], labels[predicted[i]], float(sure[i])) for i in order]


def _find_wrong_decisions(
    chances: Floats, true: NDArray[np.int64], labels: Sequence[str]
) -> list[Mistake]:
    """Return the examples with the label about which the model was most wrong."""
    # A label with the probability of one half is predicted, but hardly a mistake to be shown.
    distance = np.abs(chances - true).max(1)
    order = [i for i in np.argsort(-distance, kind="stable")[:_PICTURES] if distance[i] > 0.5]

    def named(chosen: NDArray[np.bool_]) -> str:
        return "|".join(label for label, here in zip(labels, chosen, strict=True) if here) or "none"

    return [
        (int(i), named(true[i] > 0), named(has_label(chances[i])), float(distance[i]))
        for i in order
    ]


def _mistake_table(examples: Sequence[Example], mistakes: Sequence[Mistake]) -> Table:
    rows = [
        (examples[i].origin, true, predicted, round(sure, 4))
        for i, true, predicted, sure in mistakes[:_SHOWN]
    ]
    columns = ("example", "true class", "predicted", "probability")
    return Table("Most confidently wrong", columns, list(rows), printed=False)


# ------------------------------------------------------------------------------------------ figures
def _matrix(found: ClassificationScores, labels: Sequence[str]) -> Figure:
    """Return the confusion matrix, of the classes with the most mistakes where there are too many
    to draw."""
    # A class is confusing in both directions: taken for others, and others for it.
    wrong = found.confusion.sum(0) + found.confusion.sum(1) - 2 * found.confusion.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_CLASSES_DRAWN])
    note = "Rows are true classes, columns predicted ones; the colour is the share of the row."
    if len(shown) < len(labels):
        note += f" The {len(shown)} classes of {len(labels)} with the most mistakes."
    counts = found.confusion[np.ix_(shown, shown)].tolist()
    return Figure(
        "matrix", "Confusion matrix", {"labels": [labels[i] for i in shown], "counts": counts}, note
    )


def _diagram(curve: Reliability, metrics: dict[str, float]) -> Figure:
    columns = zip(
        curve.confidence.tolist(), curve.right.tolist(), curve.counts.tolist(), strict=True
    )
    bins = [{"confidence": round(c, 6), "right": round(r, 6), "count": n} for c, r, n in columns]
    note = (
        f"Expected calibration error {curve.expected_error:.4f}, at most {curve.maximum_error:.4f}"
        " in a bin."
    )
    if "temperature" in metrics:
        before = metrics["other_half_calibration_error"]
        after = metrics["other_half_calibration_error_with_temperature"]
        note += (
            f" Temperature {metrics['temperature']:.2f}, fitted on one half of the held-out"
            f" examples, takes the error of the other half from {before:.4f} to {after:.4f}."
        )
    return Figure("reliability", "Reliability", {"bins": bins}, note)


def _gallery(
    examples: Sequence[Example], mistakes: Sequence[Mistake], processor: LabelProcessor
) -> Figure:
    """Return the mistakes that the model was surest of, as pictures or texts where the inputs are
    such."""
    items = []
    for number, true, predicted, sure in mistakes:
        item: dict[str, Any] = {
            "name": examples[number].origin or examples[number].name,
            "true": true,
            "predicted": predicted,
            "probability": round(sure, 4),
        }
        pixels = _pixels(examples[number].inputs, processor)
        if pixels is not None:
            item["picture"] = data_uri(pixels)
        elif processor.vocabulary_size:
            item["text"] = str(examples[number].inputs)[:400]
        items.append(item)
    return Figure("pictures", "Most confidently wrong", {"items": items})


def _pixels(inputs: Any, processor: LabelProcessor) -> NDArray[np.uint8] | None:
    """Return what the model saw as (H, W) or (H, W, 3), 96 pixels high and wide at most; None if it
    is no picture."""
    if len(processor.input_shape) != 3 or processor.input_shape[0] not in (1, 3, 4):
        return None
    values = processor.encode_inputs([inputs])["inputs"][0].double()
    if isinstance(processor.inputs, Pictures):
        values = processor.inputs.to_pixels(values[None])[0]
    if len(values) == 4:  # without its opacity
        values = values[:3]
    # Every second or third pixel, without smoothing: what is shown is a part of what was read.
    step = -(-max(values.shape[1:]) // _PIXELS)
    # Stretched to the full range: the contrast that was seen counts, not how bright it was.
    low = values.min()
    high = values.max()
    shown = ((values - low) / (high - low).clamp(min=1e-12) * 255).round()[:, ::step, ::step]
    pixels = shown.to(torch.uint8).numpy()
    return np.asarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
