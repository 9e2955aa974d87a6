"""What is shown of boxes before training: their classes, their sizes, and where they are drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from boxed_pictures import write_coco
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from groundup.contracts.data import Partners
from groundup.core.values import Batch, Example
from groundup.data.sources.boxes import BoxesSource
from groundup.media.augmentation.detection import BoxAugment, augment_detection
from groundup.media.augmentation.draws import Draws
from groundup.processors.boxes import BoxesProcessor, with_boxes
from groundup.processors.image import ImageConfig
from groundup.reports.inspect_boxes import sides_of, warn_of_small_boxes
from groundup.reports.inspect_examples import inspect_examples
from groundup.reports.picture_sheet import write_sheet


class Detects:
    """What a task of detection does to examples."""

    augments = True
    settings = BoxAugment(flip=True, scale=(0.8, 1.2), mosaic=0.3, hue=0.1)

    def encode(self, examples: Sequence[Example], processor: BoxesProcessor) -> Batch:
        return processor.encode(examples)

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Partners,
        processor: BoxesProcessor,
        seed: int,
    ) -> Batch:
        draws = Draws(seed, samples)
        return augment_detection(self.settings, batch, draws, partners, processor.inputs)


def settled(root: Path, cache: Path, size: int) -> tuple[BoxesSource, BoxesProcessor]:
    source = BoxesSource(path=str(root), fraction=0.3)
    examples = source.examples("train", cache)
    reader = ImageConfig(size=(size, size), resize="pad").fit(lambda: iter(examples))
    return source, with_boxes(reader, lambda: iter(examples))


@pytest.mark.slow
def test_boxes_are_listed_and_drawn(tmp_path: Path) -> None:
    source, processor = settled(write_coco(tmp_path / "data", 12), tmp_path, 48)
    task: Any = Detects()
    sheet = tmp_path / "sheet.png"
    shown = inspect_examples(source, task, processor, tmp_path, sheet, examples=3)
    console = Console(width=300, record=True, file=io.StringIO())
    for line in shown:
        console.print(line)
    text = console.export_text()
    assert "Numbers of classes" in text
    assert "in the files" in text
    assert "17" in text
    assert "Boxes as the model gets them: square root of the area, in pixels" in text
    assert f"Pictures before and after augmentation: {sheet}" in text
    with Image.open(sheet) as picture:
        assert picture.width >= 8 * 192
        colours = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
    assert {(0xCF, 0x22, 0x2E), (0x09, 0x69, 0xDA)} <= colours  # cats and dogs


def test_the_sheet_draws_regions_in_grey(tmp_path: Path) -> None:
    source, processor = settled(write_coco(tmp_path / "data", 12), tmp_path, 48)
    example = next(e for e in source.examples("train", tmp_path) if e.target.labels)
    example.target.crowd[:] = True
    task: Any = SimpleNamespace(augments=False, encode=Detects().encode)
    write_sheet([example], task, processor, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        colours = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
    assert (0x57, 0x60, 0x6A) in colours
    assert (0x09, 0x69, 0xDA) not in colours


def test_small_boxes_are_warned_of() -> None:
    batch = {
        "labels": torch.tensor([[0, -100]]),
        "boxes": torch.tensor([[[0.0, 0.0, 4.0, 9.0], [0.0, 0.0, 0.0, 0.0]]]),
    }
    assert sides_of(batch) == [6.0]
    small: Any = SimpleNamespace(split="train", sides=[6.0, 20.0, 30.0])
    (warning,) = warn_of_small_boxes([small])
    assert warning.startswith("33% of the training boxes are smaller than 8 x 8 pixels")
    large: Any = SimpleNamespace(split="train", sides=[20.0, 30.0])
    assert warn_of_small_boxes([large]) == []
