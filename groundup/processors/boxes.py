"""A processor of pictures together with the classes of the things in them: what a detector travels
with.

Shape legend: N pictures, K boxes, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.detection import Boxes
from groundup.contracts.processors import LabelProcessor, Processor, ProcessorConfig
from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.values import Batch, Example
from groundup.processors.class_targets import BoxClasses
from groundup.processors.image import ImageProcessor
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.targets import targets_from_json

__all__ = [
    "BoxesConfig",
    "BoxesProcessor",
    "mask_of",
    "picture_in_inputs",
    "place_in_inputs",
    "with_boxes",
]


class BoxesProcessor(LabelProcessor):
    """What turns pictures into tensors, and the boxes in them into places of these.

    Args:
        inputs: What reads the pictures.
        targets: The classes.
        notes: What there is to say of the data that both were fitted to.
    """

    inputs: ImageProcessor
    targets: BoxClasses
    # No text is read.
    max_length = 0

    def __init__(
        self, inputs: ImageProcessor, targets: BoxClasses, notes: Sequence[str] = ()
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.notes = tuple(notes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.inputs.input_shape

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) and ``frame`` (N, 4) of pictures; see
        ``contracts.detection``.

        Raises:
            DataError: If a picture cannot be read, or does not fit.
        """
        values, frames = self.inputs.encode_placed(inputs)
        return {"inputs": values, "frame": frames}

    def encode(self, examples: Sequence[Example]) -> Batch:
        """Return a batch as ``contracts.detection`` has it; there is room for one box at least,
        because not every operation takes tensors without elements.

        Raises:
            DataError: If a picture cannot be read, or a box is of a class that training lacks.
        """
        batch = self.encode_inputs([example.inputs for example in examples])
        targets = [_boxes_of(example) for example in examples]
        labels = self.targets.encode(targets)
        # Padded, not ragged: losses and assignments take all pictures of a batch at once.
        boxes = torch.zeros(*labels.shape, 4)
        crowd = torch.zeros(labels.shape, dtype=torch.bool)
        for row, target in enumerate(targets):
            count = len(target.labels)
            corners = torch.from_numpy(target.corners).view(count, 4)
            boxes[row, :count] = place_in_inputs(corners, batch["frame"][row])
            crowd[row, :count] = torch.from_numpy(target.crowd)
        return batch | {"boxes": boxes, "labels": labels, "crowd": crowd}

    def as_list(self, inputs: Any) -> tuple[list[Any], bool]:
        """Return inputs as a list, and whether they were several."""
        several = isinstance(inputs, list | tuple)
        return (list(inputs) if several else [inputs]), several

    def save(self, folder: Path) -> None:
        """Write processor.json, and the pictures' processor below ``inputs/``."""
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        self.inputs.save(folder / "inputs")
        saved = {"name": "boxes", "targets": self.targets.to_json(), "notes": self.notes}
        write_json(folder / "processor.json", saved)


def place_in_inputs(corners: Tensor, frame: Tensor) -> Tensor:
    """Return corners (K, 4) of a stored picture as places in ``inputs``, by its frame (4,)."""
    return corners * frame[:2].repeat(2) + frame[2:].repeat(2)


def picture_in_inputs(batch: Batch) -> Tensor:
    """Return (N, 4) left, top, right and bottom of the stored pictures in ``inputs``, without what
    pads them."""
    height, width = batch["inputs"].shape[2:]
    least = batch["frame"][:, 2:]
    # The margins are as wide on both sides, up to a pixel.
    return torch.cat((least, least.new_tensor([width, height]) - least), 1)


def mask_of(areas: Tensor, height: int, width: int) -> Tensor:
    """Return bool (N, H, W), which pixels have their middle in areas (N, 4)."""
    left, top, right, bottom = areas.T[:, :, None]
    x = torch.arange(width, device=areas.device) + 0.5
    y = torch.arange(height, device=areas.device) + 0.5
    down = (y >= top) & (y < bottom)
    across = (x >= left) & (x < right)
    mask: Tensor = down[:, :, None] & across[:, None]
    return mask


def _boxes_of(example: Example) -> Boxes:
    if not isinstance(example.target, Boxes):
        raise DataError(
            example.origin or example.name,
            f"the target is {type(example.target).__name__}; allowed: boxes",
            "Use data: boxes, or a source whose examples have Boxes as their target",
        )
    return example.target


def with_boxes(processor: Any, examples: Callable[[], Iterator[Example]]) -> BoxesProcessor:
    """Return a processor with the classes of the training split's boxes.

    Args:
        processor: What reads the pictures; or a base run's, whose classes are kept if all of this
            data's are among them.
        examples: Iterates over the training split.

    Raises:
        DataError: If no training picture has a box.
        RecipeError: If the processor reads no pictures, or cuts parts of them off.
    """
    inputs = processor.inputs if isinstance(processor, BoxesProcessor) else processor
    if not isinstance(inputs, ImageProcessor):
        raise RecipeError(
            "recipe.processor", "makes no pictures, in which things are found", "Choose image"
        )
    # A thing that was cut off can never be found, and evaluation would count it as missed.
    if inputs.resize == "crop":
        raise RecipeError(
            "recipe.processor.resize",
            "is crop, which cuts off the sides of pictures with what is in them",
            "Set pad, which keeps proportions, or stretch",
        )
    # Classes are those with boxes in training; no head learns what is never seen.
    targets = BoxClasses.fit(_boxes_of(example) for example in examples())
    if isinstance(processor, BoxesProcessor):
        # The head of the base run stays, with its numbers, where it knows all of these classes.
        before = processor.targets
        if set(targets.labels) <= set(before.labels):
            targets = before.counted_as(targets)
    return BoxesProcessor(inputs, targets, (*inputs.notes, *targets.notes))


@registry.processor("boxes")
class BoxesConfig(ProcessorConfig):
    """Not for recipes: the task of detection makes it from the recipe's processor of pictures and
    the classes of the training boxes."""

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Raise an error: nothing says what reads the pictures."""
        raise RecipeError(
            "recipe.processor.name", "boxes is made by the task", "Name what reads pictures: image"
        )

    @classmethod
    def load(cls, folder: Path) -> BoxesProcessor:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If processor.json is damaged.
        """
        inner = read_json(folder / "inputs" / "processor.json")
        with saved_settings(folder) as saved:
            reader = registry.lookup("processor", str(inner["name"])).load(folder / "inputs")
            targets = targets_from_json(saved["targets"])
            if not isinstance(reader, ImageProcessor) or not isinstance(targets, BoxClasses):
                raise ValueError("no processor of pictures with boxes")
            return BoxesProcessor(reader, targets, saved.get("notes", ()))
