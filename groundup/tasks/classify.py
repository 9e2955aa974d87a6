"""Classification: which one of several classes an input belongs to, or which labels it has.

Legend: B examples of a batch, K classes or labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.core.interfaces import Batch, EvaluationContext, LabelProcessor, Task
from groundup.core.records import Evaluation, Example, Loss, Term
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.metrics.calibration import probabilities_of
from groundup.nn.augment import Augment, Draws, augmented
from groundup.processors.labelled import with_targets
from groundup.processors.targets import Classes
from groundup.tasks.forgetting import before_and_after
from groundup.tasks.imbalance import ClassWeights, class_weights
from groundup.tasks.judging import judge_classifier, outputs_of

__all__ = ["Classify"]

_NOT_INPUTS = ("labels", "labels_2", "mix", "weights", "weights_2")


@task("classify")
class Classify(Task):
    """Minimise the cross-entropy of the true class; of several labels at once that of each label, yes or no."""

    unit: ClassVar[str] = "examples"
    labels: Literal["one", "several"] = setting("one", "Whether an example has one class, or any number of labels")
    label_smoothing: float = setting(0.0, "Share of the target spread evenly over all classes", ge=0, lt=1)
    class_weights: ClassWeights = setting(
        "none",
        "Let rare classes count more, by one over their examples (balanced) or over their effective number (effective)",
        applies_when={"labels": ("one",)},
    )
    effective_beta: float = setting(
        0.999,
        "0 weighs all classes alike, towards 1 as balanced",
        ge=0,
        lt=1,
        applies_when={"class_weights": ("effective",)},
    )
    max_tokens: int = setting(256, "Longer texts are cut to so many tokens", ge=1)
    augmentation: Augment = setting(Augment(), "How training examples are changed at random")

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        labels = "int64 (B,)" if self.labels == "one" else "float32 (B, K)"
        weights = {} if self.class_weights == "none" else {"weights": "float32 (B,)"}
        return {"inputs": "float32 (B, ...)", "labels": labels, **weights}

    def fit_processor(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> LabelProcessor:
        """Return the processor with the training split's classes; a base run's, where it knows them all.

        Raises:
            DataError: If there are fewer than two classes, or no labels at all.
            RecipeError: If an augmentation does nothing for such inputs.
        """
        fit = Classes.fit if self.labels == "one" else Classes.fit_several
        found = with_targets(processor, examples, fit, self.max_tokens)
        self.augmentation.check(found.input_shape, categories=bool(found.category_sizes))
        return found

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all examples' inputs and class numbers, stacked, and their weights if classes weigh differently.

        Raises:
            DataError: If an input has another shape, or a label was not in the training split.
        """
        encoded = processor.encode_inputs([example.inputs for example in examples])
        encoded["labels"] = processor.targets.encode([example.target for example in examples])
        if self.class_weights != "none":
            counts = getattr(processor.targets, "counts", ())
            encoded["weights"] = class_weights(counts, self.class_weights, self.effective_beta)[encoded["labels"]]
        return encoded

    @property
    def augments(self) -> bool:
        """Whether any augmentation is set."""
        return bool(self.augmentation.used)

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Callable[[], Batch],
        processor: LabelProcessor,
        seed: int,
    ) -> Batch:
        """Return a training micro-batch changed at random; see ``nn.augment.augmented``."""
        return augmented(self.augmentation, batch, Draws(seed, samples), partners, processor.inputs)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads: all but the labels and weights."""
        return {name: values for name, values in batch.items() if name not in _NOT_INPUTS}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the summed cross-entropy in nats of outputs (B, K), and how many are right.

        With class weights each example's part and its count are times its weight, so that the mean is PyTorch's
        weighted mean over the global batch, however it is cut into micro-batches. Of several labels an example's
        cross-entropy is the mean over the labels, and it is right if every label is. Of a mixture of two examples, each
        label counts by its share.

        Source:
            Label smoothing: Szegedy et al., 2015 (arXiv:1512.00567), section 7. Mixtures: Zhang et al., 2017
            (arXiv:1710.09412), section 2.
        """
        examples = torch.tensor(float(len(outputs)))
        if self.labels == "one" and not {"mix", "weights"} & batch.keys():  # the usual case, quicker
            labels, smoothing = batch["labels"], self.label_smoothing
            total = F.cross_entropy(outputs.float(), labels, reduction="sum", label_smoothing=smoothing)
            if torch.is_grad_enabled():  # a step of training, which is told by its loss
                return Loss({"label": Term(total, examples)})
            right = (outputs.argmax(1) == labels).sum()
            return Loss({"label": Term(total, examples)}, {"right": right, "examples": examples})
        each, right = self._each(outputs.float(), batch["labels"])
        own, others = _shares(batch)
        total, right = each * own, right.float()
        if "mix" in batch:
            each, other = self._each(outputs.float(), batch["labels_2"])
            total = total + each * others
            right = batch["mix"] * right + (1 - batch["mix"]) * other
        return Loss(
            {"label": Term(total.sum(), (own + others).sum())},
            {"right": right.sum(), "examples": examples},
        )

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return what the examples count for in the loss: 1 each, or as much as the classes' weights and shares say."""
        own, others = _shares(batch)
        return {"label": float((own + others).sum())}

    def _each(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B,) the loss of each example and whether it is right."""
        if self.labels == "one":
            each = F.cross_entropy(outputs, labels, reduction="none", label_smoothing=self.label_smoothing)
            return each, outputs.argmax(1) == labels
        wanted = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        each = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)
        return each, ((outputs >= 0) == (labels > 0)).all(1)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats an example, and accuracy (of several labels: all of them right), 0 to 1."""
        total, count = sums["label"]
        name = "accuracy" if self.labels == "one" else "subset_accuracy"
        return {"loss": total / max(count, 1e-12), name: sums["right"][0] / max(sums["examples"][0], 1.0)}

    def predict(self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any) -> Any:
        """Return the class of an input, or of each of a list of inputs; of several labels the list of its labels.

        Args:
            model: The trained model.
            inputs: One raw input, or a list of them.
            processor: The run's processor.
            **options: ``top=3`` gives the three likeliest as (label, probability) instead; ``temperature`` divides the
                outputs first, so that probabilities are as sure as they may be: the run's evaluation says which one.
        """
        each = isinstance(inputs, list | tuple)
        outputs = outputs_of(model, inputs if each else [inputs], processor)
        temperature = float(options.get("temperature") or 1.0)  # 0 is greedy where texts are generated
        several = self.labels == "several"
        top, found = int(options.get("top", 0)), []
        for row in probabilities_of(outputs, several=several, temperature=temperature):
            best: Any = [(processor.labels[k], float(row[k])) for k in row.argsort()[::-1]]
            if not top:
                best = [label for label, chance in best if chance >= 0.5] if several else best[0][0]
            found.append(best[:top] if top else best)
        return found if each else found[0]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Judge a model on the held-out examples: measures with intervals, calibration, and what it gets wrong."""
        several = self.labels == "several"
        found = judge_classifier(context, several=several)
        tables = [] if several else before_and_after(context, "accuracy", _accuracy)
        return dataclasses.replace(found, tables=[*found.tables, *tables])


def _shares(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return (B,) what each example's own label counts for, and the one that was mixed in."""
    own = batch.get("weights", torch.ones(len(batch["labels"]), device=batch["labels"].device))
    if "mix" not in batch:
        return own, torch.zeros_like(own)
    return batch["mix"] * own, (1 - batch["mix"]) * batch.get("weights_2", torch.ones_like(own))


def _accuracy(model: nn.Module, processor: LabelProcessor, examples: Sequence[Example]) -> float:
    outputs = outputs_of(model, [example.inputs for example in examples], processor)
    true = processor.targets.encode([example.target for example in examples])
    return float((torch.as_tensor(outputs).argmax(1) == true).double().mean())
