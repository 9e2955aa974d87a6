"""Classification: which one of several classes an input belongs to.

Legend: B examples of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core.interfaces import Batch, EvaluationContext, LabelProcessor, Task
from groundup.core.records import Evaluation, Example, Loss, Table, Term
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.metrics.classification import judge
from groundup.processors.labelled import with_targets
from groundup.processors.targets import Classes
from groundup.tasks.forgetting import before_and_after

__all__ = ["Classify"]

_AT_ONCE = 1024
_SHOWN = 10


@task("classify")
class Classify(Task):
    """Minimise the cross-entropy of the true class."""

    unit: ClassVar[str] = "examples"
    label_smoothing: float = setting(0.0, "Share of the target spread evenly over all classes", ge=0, lt=1)

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {"inputs": "float32 (B, ...)", "labels": "int64 (B,)"}

    max_tokens: int = setting(256, "Longer texts are cut to so many tokens", ge=1)

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> LabelProcessor:
        """Return the processor with the training split's classes; a base run's, where it knows them all.

        Raises:
            DataError: If there are fewer than two classes.
        """
        return with_targets(processor, examples, Classes.fit, self.max_tokens)

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all examples' inputs and class numbers, stacked.

        Raises:
            DataError: If an input has another shape, or a label was not in the training split.
        """
        encoded = processor.encode_inputs([example.inputs for example in examples])
        return encoded | {"labels": processor.targets.encode([example.target for example in examples])}

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads: all but the labels."""
        return {name: values for name, values in batch.items() if name != "labels"}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the summed cross-entropy in nats of outputs (B, K), and how many are right.

        Source:
            Label smoothing: Szegedy et al., 2015 (arXiv:1512.00567), section 7.
        """
        labels = batch["labels"]
        total = F.cross_entropy(outputs.float(), labels, reduction="sum", label_smoothing=self.label_smoothing)
        count = torch.tensor(float(len(labels)))
        return Loss({"label": Term(total, count)}, {"right": (outputs.argmax(1) == labels).sum()})

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats an example, and accuracy, 0 to 1."""
        total, count = sums["label"]
        return {"loss": total / max(count, 1.0), "accuracy": sums["right"][0] / max(count, 1.0)}

    def predict(self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any) -> Any:
        """Return the class of an input, or of each of a list of inputs; ``top=3`` gives the likeliest with chances."""
        several = isinstance(inputs, list | tuple)
        chances = _probabilities(model, inputs if several else [inputs], processor)
        top = int(options.get("top", 0))
        found: list[Any] = []
        for row in chances:
            order = row.argsort()[::-1]
            best = [(processor.labels[k], float(row[k])) for k in order[: max(top, 1)]]
            found.append(best if top else best[0][0])
        return found if several else found[0]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge a model on the held-out examples: accuracy with its interval, per class, and what it confuses."""
        examples = list(context.examples(context.held_out))
        context.progress(f"classifying {len(examples)} examples of the {context.held_out} split")
        chances = _probabilities(context.model, [example.inputs for example in examples], context.processor)
        true = context.processor.targets.encode([example.target for example in examples]).numpy()
        found, labels = judge(chances, true), context.processor.labels
        metrics = {"held_out_examples": float(len(examples)), **found.metrics}
        classes = [
            (label, *(round(value, 4) for value in row[:3]), row[3])
            for label, row in zip(labels, found.per_class, strict=True)
        ]
        confused = [
            (labels[i], labels[j], int(found.confusion[i, j]))
            for i, j in sorted(np.ndindex(*found.confusion.shape), key=lambda at: -found.confusion[at])
            if i != j and found.confusion[i, j]
        ]
        return Evaluation(
            metrics,
            [
                Table("Classes", ("class", "precision", "recall", "F1", "examples"), list(classes)),
                Table("Most confused", ("true class", "predicted", "times"), list(confused[:_SHOWN])),
                _worst(examples, chances, true, labels),
                *before_and_after(context, "accuracy", _accuracy),
            ],
        )


def _accuracy(model: nn.Module, processor: LabelProcessor, examples: Sequence[Example]) -> float:
    chances = _probabilities(model, [example.inputs for example in examples], processor)
    true = processor.targets.encode([example.target for example in examples]).numpy()
    return float((chances.argmax(1) == true).mean())


def _worst(
    examples: Sequence[Example], chances: NDArray[np.float64], true: NDArray[np.int64], labels: Sequence[str]
) -> Table:
    """Return the mistakes that the model was surest of."""
    predicted, sure = chances.argmax(1), chances.max(1)
    wrong = np.flatnonzero(predicted != true)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:_SHOWN]
    rows = [(examples[i].origin, labels[true[i]], labels[predicted[i]], round(float(sure[i]), 4)) for i in order]
    return Table("Most confidently wrong", ("example", "true class", "predicted", "probability"), list(rows))


@torch.no_grad()
def _probabilities(model: nn.Module, inputs: Sequence[Any], processor: LabelProcessor) -> NDArray[np.float64]:
    """Return (N, K)."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    parts = []
    for start in range(0, len(inputs), _AT_ONCE):
        encoded = processor.encode_inputs(inputs[start : start + _AT_ONCE])
        outputs = model(**{name: values.to(device) for name, values in encoded.items()})
        parts.append(outputs.double().softmax(1).cpu())
    model.train(training)
    return torch.cat(parts).numpy()
