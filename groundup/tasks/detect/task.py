"""Find things in pictures: a box around each, and what it is.

Shape legend: B pictures, K boxes, C channels, H rows, W columns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.data import Partners
from groundup.contracts.detection import DenseDetections, SetDetections
from groundup.contracts.tasks import PREDICTION, EvaluationContext, Task
from groundup.core.errors import RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss
from groundup.generation.scoring import device_of, evaluating
from groundup.media.augmentation.detection import BoxAugment, augment_detection
from groundup.media.augmentation.draws import Draws
from groundup.processors.boxes import (
    BoxesProcessor,
    mask_of,
    picture_in_inputs,
    with_boxes,
)
from groundup.tasks.detect.dense_loss import DenseLoss
from groundup.tasks.detect.detections import Choice, Found
from groundup.tasks.detect.drawing import draw_found
from groundup.tasks.detect.evaluation import evaluate_detector, score_examples
from groundup.tasks.detect.prediction import find_in
from groundup.tasks.detect.set_loss import SetLoss
from groundup.tasks.detect.training_sizes import check_sizes

__all__ = ["Detect"]

# Parts of the loss that are shown next to it.
_DENSE = ("class", "giou", "distribution")


@task("detect")
class Detect(Task):
    """Minimise the loss of what is said of each point or query of a picture.

    Detectors of both kinds are learned: those that say at each point of their maps what is there,
    and those whose queries find a thing each.
    """

    unit: ClassVar[str] = "boxes"
    file_source: ClassVar[str] = "boxes"

    dense_loss: DenseLoss = setting(
        DenseLoss(), "The loss of detectors that look at points, such as detector"
    )
    set_loss: SetLoss = setting(SetLoss(), "The loss of detectors with queries, such as detr")
    augmentation: BoxAugment = setting(
        BoxAugment(), "How training pictures are changed at random, their boxes with them"
    )
    mask_padding: bool = setting(
        False,
        "Tell the model which pixels only pad a picture (processor.resize: pad), so that nothing"
        " looks there; detr reads it, as that of transformers does",
    )
    threshold: float = setting(
        0.3, "The least probability of what predict and pictures of mistakes show", ge=0, lt=1
    )
    nms: float = setting(
        0.6,
        "Of two boxes of a class that overlap by more, the less probable one is left out;"
        " detectors with queries need none",
        gt=0,
        le=1,
    )
    max_detections: int = setting(100, "Things found in a picture, at most", ge=1)
    measured: int = setting(
        500, "Held-out pictures on which each validation measures mAP; 0: the loss alone", ge=0
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read; see ``contracts.detection``. ``frame`` comes with the
        pictures."""
        spec = {
            "inputs": "float32 (B, C, H, W)",
            "boxes": "float32 (B, K, 4)",
            "labels": "int64 (B, K)",
            "crowd": "bool (B, K)",
        }
        return spec | ({"picture": "float32 (B, 4)"} if self.mask_padding else {})

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Example]]
    ) -> BoxesProcessor:
        """Return the processor with the classes of the training split's boxes.

        Raises:
            DataError: If there are none.
            RecipeError: If it reads no pictures, or an augmentation means nothing for them.
        """
        found = with_boxes(processor, examples)
        for name in ("saturation", "hue"):
            if name in self.augmentation.used and found.input_shape[0] != 3:
                raise RecipeError(
                    f"recipe.task.augmentation.{name}",
                    f"needs three channels, but the pictures have {found.input_shape[0]}",
                    "Remove it",
                )
        return found

    def encode(self, examples: Sequence[Example], processor: BoxesProcessor) -> Batch:
        """Return pictures and boxes of examples; see ``contracts.detection``."""
        batch = processor.encode(examples)
        if self.mask_padding:
            batch["picture"] = picture_in_inputs(batch)
        return batch

    def check_model(self, model: nn.Module, processor: BoxesProcessor) -> None:
        """Check that the model finds things in pictures, of the data's classes.

        Raises:
            RecipeError: If it does not, or the loss of detectors of the other kind was set.
        """
        sides = [1, *processor.input_shape]
        # One forward pass of a black picture: what a model gives is not declared anywhere.
        with evaluating(model):
            try:
                found = model(inputs=torch.zeros(sides, device=device_of(model)))
            except TypeError:
                found = None
        if self.mask_padding:
            self._check_mask(model, processor)
        if self.augmentation.sizes:
            check_sizes(model, processor.input_shape[0], self.augmentation.sizes)
        kinds = {DenseDetections: "set_loss", SetDetections: "dense_loss"}
        idle = kinds.get(type(found))
        if idle is None:
            raise RecipeError(
                "recipe.model",
                f"{type(model).__name__} finds nothing in pictures, as task detect needs it",
                "Use model: detector, or detr",
            )
        if dict(self)[idle] != type(self).model_fields[idle].default:
            raise RecipeError(
                f"recipe.task.{idle}",
                "has no effect: it is the loss of detectors of another kind than"
                f" {type(model).__name__}",
                "Remove it",
            )

    def _check_mask(self, model: nn.Module, processor: BoxesProcessor) -> None:
        """Check that pictures are padded, and that the model is to know of it.

        Raises:
            RecipeError: If not.
        """
        where = "recipe.task.mask_padding"
        reader = processor.inputs
        if reader.resize != "pad" and reader.pad_to is None:
            raise RecipeError(
                where,
                "has no effect: nothing pads the pictures",
                "Remove it, or set processor.resize: pad",
            )
        if "mask" not in inspect.signature(model.forward).parameters:
            raise RecipeError(
                where,
                f"has no effect: {type(model).__name__} reads no mask",
                "Remove it, or use model: detr",
            )

    @property
    def augments(self) -> bool:
        """Whether any augmentation is set."""
        return bool(self.augmentation.used)

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Partners,
        processor: BoxesProcessor,
        seed: int,
    ) -> Batch:
        """Return a training micro-batch changed at random; see ``augment_detection``."""
        draws = Draws(seed, samples)
        return augment_detection(self.augmentation, batch, draws, partners, processor.inputs)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the pictures, and what is of them where something pads them."""
        inputs = batch["inputs"]
        if not self.mask_padding:
            return {"inputs": inputs}
        height, width = inputs.shape[2:]
        return {"inputs": inputs, "mask": mask_of(batch["picture"], height, width)}

    def loss(self, outputs: DenseDetections | SetDetections, batch: Batch) -> Loss:
        """Return sums over the batch's boxes; see ``DenseLoss`` and ``SetLoss``."""
        if isinstance(outputs, SetDetections):
            found = self.set_loss(outputs, batch)
            # First a term that counts boxes: it is what is logged.
            terms = {name: found.terms[name] for name in ("giou", "box", "class")}
            return Loss(terms, found.metrics)
        return self.dense_loss(outputs, batch)

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the loss of a box, and its parts before they are weighed."""
        if "boxes" in sums:
            total, count = sums["boxes"]
            count = max(count, 1.0)
            parts = {f"{name}_loss": sums[name][0] / count for name in _DENSE}
            return {"loss": total / count, **parts}
        # Terms of sets have counts of their own, so each mean is taken before it is weighed.
        weights = {
            "class": self.set_loss.class_weight,
            "box": self.set_loss.box_weight,
            "giou": self.set_loss.giou_weight,
        }
        means = {name: sums[name][0] / max(sums[name][1], 1.0) for name in weights}
        parts = {f"{name}_loss": mean for name, mean in means.items()}
        loss = sum(weights[name] * mean for name, mean in means.items())
        # Named where there are any: they teach nothing, and no loss would show it.
        beyond, _ = sums.get("boxes_without_query", (0.0, 0.0))
        if beyond:
            parts["boxes_without_query"] = beyond
        return {"loss": loss, **parts}

    # ------------------------------------------------------------------------------------ finding
    @property
    def shown(self) -> Choice:
        """What is shown to a user."""
        return Choice(self.threshold, self.max_detections, self.nms)

    def predict(
        self, model: nn.Module, inputs: Any, processor: BoxesProcessor, **options: Any
    ) -> Any:
        """Return what is in a picture, or in each of a list of pictures: a list of
        ``{"label": ..., "score": ..., "box": [left, top, right, bottom]}``, the most probable
        first, in pixels of the picture.

        Args:
            model: The trained model.
            inputs: A picture as a path, a Pillow image or an array; or a list of them.
            processor: The run's.
            **options: ``threshold=0.5`` in place of the task's.
        """
        pictures, several = processor.as_list(inputs)
        choice = Choice(
            float(options.get("threshold", self.threshold)), self.max_detections, self.nms
        )
        found = find_in(model, pictures, processor, choice, masked=self.mask_padding)
        named = [_in_words(each, processor.labels) for each in found]
        return named if several else named[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: BoxesProcessor, **options: Any
    ) -> list[dict[str, Any]]:
        """Return what is in each picture, and how many things that are."""
        found = self.predict(model, list(inputs), processor, **options)
        return [{PREDICTION: each, "things": len(each)} for each in found]

    def draw(self, inputs: Sequence[Any], predicted: Sequence[Any]) -> list[NDArray[np.uint8]]:
        """Return pictures (H, W, 3) with the boxes found in each, small ones enlarged."""
        return [draw_found(each, found) for each, found in zip(inputs, predicted, strict=True)]

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: BoxesProcessor
    ) -> dict[str, float]:
        """Return mAP by the rules of COCO on held-out pictures."""
        scores, _ = score_examples(self, model, examples, processor)
        names = ("map", "map_50", "map_75", "recall")
        return {name: scores.metrics[name] for name in names}

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate a model on the held-out pictures; see ``evaluate_detector``."""
        return evaluate_detector(self, context)


def _in_words(found: Found, labels: Sequence[str]) -> list[dict[str, Any]]:
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [
        {
            "label": labels[number],
            "score": round(score, 4),
            "box": [round(edge, 2) for edge in box],
        }
        for number, score, box in rows
    ]
