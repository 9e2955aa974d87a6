"""Classification: which one of several classes an input belongs to, with or without an order, or
which labels it has.

Legend: B examples of a batch, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor, nn

from groundup.contracts.data import Views
from groundup.contracts.processors import LabelProcessor, Targets
from groundup.contracts.tasks import PREDICTION, EvaluationContext, Task
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.media.augmentation.batch import augment_batch
from groundup.media.augmentation.draws import Draws
from groundup.media.augmentation.settings import Augment
from groundup.media.augmentation.views import views_of
from groundup.media.table_values import as_category
from groundup.metrics.standard_error import standard_error
from groundup.processors.class_targets import MultiLabel, SingleLabel
from groundup.processors.labelled import check_pairs, with_targets
from groundup.tasks.classify.class_weights import ClassWeights, class_weights
from groundup.tasks.classify.evaluation import evaluate_classifier
from groundup.tasks.classify.losses import shares_of, soft_labels, squared_hinge
from groundup.tasks.classify.prediction import accuracy_on, chances_of, choose
from groundup.tasks.shared.forgetting import compare_before_and_after
from groundup.tasks.shared.guess_loss import guess_loss
from groundup.tasks.shared.small_data import SMALL_DATA_SETTINGS

__all__ = ["Classify"]

# What encoding and mixing put into a batch for the loss alone.
_NOT_INPUTS = ("labels", "labels_2", "mix", "weights", "weights_2", "guess", "commonest")


@task("classify")
class Classify(Task):
    """Minimise the cross-entropy of the true class; of several labels at once that of each label,
    yes or no.

    Classes with an order, such as ratings, are learned from soft labels: the target of an example
    gives classes near the true one a share too, so that a mistake costs less the nearer it is.
    """

    unit: ClassVar[str] = "examples"
    file_source: ClassVar[str] = "labelled_text"
    default_settings: ClassVar[Mapping[str, Any]] = SMALL_DATA_SETTINGS
    labels: Literal["single", "ordinal", "multi_label"] = setting(
        "single",
        "Whether an example has one class, one of classes with an order (ratings), or any number of"
        " labels",
    )
    order: tuple[str | int | float, ...] | None = setting(
        None,
        "The classes from the lowest to the highest; null: they are numbers, ordered by size",
        min_length=2,
        applies_when={"labels": ("ordinal",)},
    )
    ordinal_smoothing: float = setting(
        1.0,
        "Neighbours of the true class get a share of the target, exp(-1 / ordinal_smoothing) of the"
        " nearer one's; towards 0: as labels: single",
        gt=0,
        applies_when={"labels": ("ordinal",)},
    )
    loss_function: Literal["cross_entropy", "squared_hinge"] = setting(
        "cross_entropy",
        "squared_hinge: that of a linear SVM, each class against the rest; its probabilities are"
        " rough",
        applies_when={"labels": ("single",)},
    )
    label_smoothing: float = setting(
        0.0,
        "Share of the target spread evenly over all classes",
        ge=0,
        lt=1,
        applies_when={"loss_function": ("cross_entropy",)},
    )
    class_weights: ClassWeights = setting(
        "none",
        "Let rare classes count more, by one over their examples (balanced) or over their effective"
        " number (effective)",
        applies_when={"labels": ("single", "ordinal")},
    )
    effective_beta: float = setting(
        0.999,
        "0 weighs all classes alike, towards 1 as balanced",
        ge=0,
        lt=1,
        applies_when={"class_weights": ("effective",)},
    )
    max_tokens: int = setting(256, "Longer texts are cut to this number of tokens", ge=1)
    augmentation: Augment = setting(Augment(), "How training examples are changed at random")

    @field_validator("order")
    @classmethod
    def _no_class_twice(
        cls, order: tuple[str | int | float, ...] | None
    ) -> tuple[str | int | float, ...] | None:
        # As text: 1 and "1" are the same class in a CSV file.
        names = [as_category(label) for label in order or ()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice!r} twice. Give each class one place")
        return order

    @property
    def orders_classes(self) -> bool:
        """Ordered classes are numbered from the lowest to the highest."""
        return self.labels == "ordinal"

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        if self.labels == "multi_label":
            return {"inputs": "float32 (B, ...)", "labels": "float32 (B, K)"}
        spec = {"inputs": "float32 (B, ...)", "labels": "int64 (B,)"}
        spec |= {"guess": "float32 (B,)", "commonest": "bool (B,)"}
        return spec | ({} if self.class_weights == "none" else {"weights": "float32 (B,)"})

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Any]]
    ) -> LabelProcessor:
        """Return the processor with the training split's classes; a base run's, where it knows them
        all.

        Raises:
            DataError: If there are fewer than two classes, no labels at all, or ``order`` does not
                fit the classes.
            RecipeError: If an augmentation does nothing for such inputs.
        """
        order = None if self.order is None else [as_category(label) for label in self.order]

        def fit(targets: Iterable[Any]) -> Targets:
            if self.orders_classes:
                return SingleLabel.fit_ordered(targets, order)
            return (SingleLabel if self.labels == "single" else MultiLabel).fit(targets)

        found = with_targets(
            processor, examples, fit, self.max_tokens, in_order=self.orders_classes
        )
        # Here, because what an augmentation does depends on the kind of inputs, which only the
        # processor knows.
        self.augmentation.check(found.input_shape, categories=bool(found.category_sizes))
        return found

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return all examples' inputs and class numbers, stacked, and their weights if classes
        weigh differently.

        Raises:
            DataError: If an input has another shape, or a label was not in the training split.
        """
        encoded = processor.encode_inputs([example.inputs for example in examples])
        # Class numbers are the processor's, and travel with the run.
        encoded["labels"] = processor.targets.encode([example.target for example in examples])
        if self.class_weights != "none":
            counts = processor.targets.counts
            weights = class_weights(counts, self.class_weights, self.effective_beta)
            encoded["weights"] = weights[encoded["labels"]]
        if self.labels != "multi_label":
            # Processors of older runs did not count.
            counts = processor.targets.counts or (1,) * processor.targets.outputs
            losses = guess_loss(counts)
            encoded["guess"] = losses[encoded["labels"]]
            encoded["commonest"] = encoded["labels"] == losses.argmin()
        return encoded

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that the model tells apart what the processor gives it."""
        check_pairs(model, processor)

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
        """Return a training micro-batch changed at random; see ``augment_batch``."""
        draws = Draws(seed, samples)
        return augment_batch(self.augmentation, batch, draws, partners, processor.inputs)

    def views(self, seed: int) -> Views | None:
        """Return what draws the parts of pictures that are read; see ``DrawsViews``."""
        return views_of(self.augmentation, seed)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the model reads: all but the labels and weights."""
        return {name: values for name, values in batch.items() if name not in _NOT_INPUTS}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the summed cross-entropy in nats of outputs (B, K), and how many are right.

        With class weights each example's part and its count are times its weight, so that the mean
        is PyTorch's weighted mean over the global batch, however it is cut into micro-batches. Of
        several labels an example's cross-entropy is the mean over the labels, and it is right if
        every label is. Of a mixture of two examples, each label counts by its share. Of classes
        with an order the cross-entropy is that of ``soft_labels``.

        Source:
            Label smoothing: Szegedy et al., 2015 (arXiv:1512.00567), section 7. Mixtures: Zhang et
            al., 2017 (arXiv:1710.09412), section 2.
        """
        examples = torch.tensor(float(len(outputs)))
        # The usual case in one fused operation: on small models the loss is a good part of a step,
        # and of a training step only the loss is logged.
        fused = self.labels == "single" and self.loss_function == "cross_entropy"
        if torch.is_grad_enabled() and fused and not {"mix", "weights"} & batch.keys():
            smoothing = self.label_smoothing
            total = F.cross_entropy(
                outputs.float(), batch["labels"], reduction="sum", label_smoothing=smoothing
            )
            return Loss({"label": Term(total, examples)})
        losses, each = self._losses(outputs.float(), batch)
        # The same function gives the counts, so both agree to the last bit.
        own, others = shares_of(batch)
        sums = {name: value.sum() for name, value in each.items()} | {"examples": examples}
        if not torch.is_grad_enabled():
            sums |= self._compared(outputs.float(), batch)
            losses = losses.double()  # what differs between examples may be far below the mean
        count = (own + others).sum()
        return Loss({"label": Term(losses.sum(), count)}, sums)

    @property
    def _loss_is_plain(self) -> bool:
        """Whether the loss is the cross-entropy itself, neither smoothed nor weighted."""
        changed = self.label_smoothing or self.loss_function != "cross_entropy"
        return self.labels != "ordinal" and not changed and self.class_weights == "none"

    def _compared(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return what a validation's loss is read next to: how far examples differ, the plain
        cross-entropy where the loss is another, and that of always answering with the training
        split's shares."""
        found = {"loss_squares": (self._losses(outputs, batch)[0].double() ** 2).sum()}
        labels = batch["labels"]
        if not self._loss_is_plain:
            if self.labels == "multi_label":
                each = F.binary_cross_entropy_with_logits(outputs, labels, reduction="none")
                found["plain"] = each.mean(1).sum()
            else:
                found["plain"] = F.cross_entropy(outputs, labels, reduction="sum")
        if "guess" in batch:
            found["guess"] = batch["guess"].sum()
            found["usual"] = batch["commonest"].sum()
        return found

    # ------------------------------------------------------ by example: for teachers and privacy
    @property
    def distils(self) -> str:
        """What a teacher must predict; of several labels nothing can be learned from one."""
        return "" if self.labels == "multi_label" else "classes"

    def predicted(self, batch: Batch) -> Tensor:
        """Return (B,) that all examples are trained on."""
        return torch.ones(len(batch["labels"]), dtype=torch.bool, device=batch["labels"].device)

    def prediction_loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Return what ``loss`` does."""
        return self.loss(logits, batch)

    def example_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return (B,) the cross-entropy of each example, times its weight."""
        return self._losses(outputs.float(), batch)[0]

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return what the examples count for in the loss: 1 each, or as much as the classes'
        weights and shares say."""
        own, others = shares_of(batch)
        return {"label": float((own + others).sum())}

    def _losses(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (B,) each example's loss, by its weight and its shares of two labels, and what
        ``_each`` tells of it."""
        each, watched = self._each(outputs, batch["labels"])
        own, others = shares_of(batch)
        if "mix" not in batch:
            return each * own, watched
        second, other = self._each(outputs, batch["labels_2"])
        # A mixture is right by the share of each class that was right, as its loss is.
        mix = batch["mix"]
        mixed = {name: mix * value + (1 - mix) * other[name] for name, value in watched.items()}
        return each * own + second * others, mixed

    def _each(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (B,) the loss of each example; whether it is right, and in an order by how many
        classes it is off."""
        if self.labels == "multi_label":
            # Each label is a choice of two, so smoothing moves it towards one half.
            wanted = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
            each = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(1)
            # An output of 0 is a probability of one half, from which on a label is predicted.
            return each, {"right": ((outputs >= 0) == (labels > 0)).all(1).float()}
        target = labels
        if self.orders_classes:
            target = soft_labels(labels, outputs.shape[1], self.ordinal_smoothing)
        if self.loss_function == "squared_hinge":
            each = squared_hinge(outputs, labels)
        else:
            smoothing = self.label_smoothing
            each = F.cross_entropy(outputs, target, reduction="none", label_smoothing=smoothing)
        off = (outputs.argmax(1) - labels).abs().float()
        watched = {"right": (off == 0).float()}
        if self.orders_classes:
            watched["off"] = off
        return each, watched

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats an example, and accuracy (of several labels: all of them right), 0 to
        1.

        Of classes with an order also by how many classes the prediction is off, on average. Of held
        out examples also ``plain_loss``, where the loss is weighted or smoothed, ``baseline_loss``,
        the plain one of always answering with the training split's shares,
        ``baseline_accuracy``, that of its commonest class, ``loss_standard_error``, and how many
        ``examples`` there are.
        """
        total, count = sums["label"]
        examples = max(sums["examples"][0], 1.0)
        name = "subset_accuracy" if self.labels == "multi_label" else "accuracy"
        # With class weights the count is no whole number, and may be below 1.
        found = {"loss": total / max(count, 1e-12), name: sums["right"][0] / examples}
        if self.orders_classes:
            found["mean_absolute_error"] = sums["off"][0] / examples
        compared = {"plain": "plain_loss", "guess": "baseline_loss", "usual": "baseline_accuracy"}
        found |= {name: sums[term][0] / examples for term, name in compared.items() if term in sums}
        if "loss_squares" in sums:
            squares = sums["loss_squares"][0]
            error = standard_error(total, squares, examples) * examples / max(count, 1e-12)
            found |= {"loss_standard_error": error, "examples": examples}
        return found

    def predict(
        self, model: nn.Module, inputs: Any, processor: LabelProcessor, **options: Any
    ) -> Any:
        """Return the class of an input, or of each of a list of inputs; of several labels the list
        of its labels.

        Args:
            model: The trained model.
            inputs: One raw input, or a list of them; of pairs of texts a tuple of two, or a text
                with a tab between.
            processor: The run's processor.
            **options: ``top=3`` gives the three likeliest as (label, probability) instead;
                ``temperature`` divides the outputs first, so that probabilities are as sure as they
                may be: the run's evaluation says which one.
        """
        rows, each = processor.as_list(inputs)
        top = int(options.get("top", 0))
        found: list[Any] = []
        for row in chances_of(model, rows, processor, options, self.labels):
            order = row.argsort()[::-1]
            if top:
                found.append([(processor.labels[k], float(row[k])) for k in order[:top]])
            else:
                found.append(choose(row, processor.labels, self.labels))
        return found if each else found[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: LabelProcessor, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the class of each input, or its labels, and the probability of every class."""
        rows = []
        for row in chances_of(model, list(inputs), processor, options, self.labels):
            chances = dict(zip(processor.labels, map(float, row), strict=True))
            rows.append(
                {PREDICTION: choose(row, processor.labels, self.labels), "probabilities": chances}
            )
        return rows

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a model on the held-out examples: measures with intervals, calibration, and what
        it gets wrong."""
        found = evaluate_classifier(context, self.labels)
        if self.labels != "multi_label":
            found.tables.extend(compare_before_and_after(context, "accuracy", accuracy_on))
        return found
