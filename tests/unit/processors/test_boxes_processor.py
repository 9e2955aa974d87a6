"""Batches of pictures with boxes: where the boxes are in them, and in which order they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from boxed_pictures import write_coco
from tiny_runs import TRUNK

from groundup.contracts.data import DataContext
from groundup.core.values import IGNORED, Example
from groundup.data.sources.boxes import BoxesSource
from groundup.processors.boxes import with_boxes
from groundup.processors.image import ImageConfig
from groundup.testing import check_data


def read(root: Path, cache: Path) -> list[Example]:
    return BoxesSource(path=str(root), fraction=0.0).examples("train", cache)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_a_batch_has_boxes_where_the_pixels_are(resize: Any, tmp_path: Path) -> None:
    examples = read(write_coco(tmp_path / "data"), tmp_path)
    reader = ImageConfig(size=(60, 120), resize=resize).fit(lambda: iter(examples))
    processor = with_boxes(reader, lambda: iter(examples))
    assert processor.labels == ("cat", "dog")
    assert processor.targets.counts == (2, 2)
    batch = processor.encode(examples)
    assert batch["boxes"].shape == (4, 2, 4)
    assert batch["labels"].tolist() == [[0, 1], [1, IGNORED], [IGNORED, IGNORED], [0, IGNORED]]
    frame = batch["frame"][:, None]
    back = (batch["boxes"] - frame[..., 2:].repeat(1, 1, 2)) / frame[..., :2].repeat(1, 1, 2)
    assert torch.allclose(back[0, 0], torch.tensor([2.0, 3.0, 12.0, 15.0]))
    left, top, right, bottom = batch["boxes"][0, 1].tolist()
    pixels = processor.inputs.to_pixels(batch["inputs"])[0].mean(0)
    assert (
        float(pixels[round(top) + 1 : round(bottom) - 1, round(left) + 1 : round(right) - 1].min())
        > 0.6
    )
    processor.save(tmp_path / "processor")


def test_a_stream_of_boxes(tmp_path: Path) -> None:
    source = BoxesSource(path=str(write_coco(tmp_path / "data", 8)), fraction=0.3)
    examples = source.examples("train", tmp_path)
    reader = ImageConfig(size=(16, 16)).fit(lambda: iter(examples))
    processor = with_boxes(reader, lambda: iter(examples))
    found = {}
    for keep in (True, False):
        context = DataContext(
            split="train",
            encode=processor.encode,
            encode_key="",
            end_id=0,
            sequence_length=0,
            batch_size=2,
            micro_batch_size=2,
            seed=0,
            cache=tmp_path,
        )
        stream = source.model_copy(update={"in_memory": keep}).open(context)
        found[keep] = [next(stream) for _ in range(5)]
    for one, other in zip(found[True], found[False], strict=True):
        assert torch.equal(one["inputs"], other["inputs"])
        most = other["boxes"].shape[1]
        assert torch.equal(one["boxes"][:, :most], other["boxes"])


@pytest.mark.slow
def test_what_every_source_keeps(tmp_path: Path) -> None:
    model = {"name": "detector", "backbone": TRUNK, "strides": [4, 8], "width": 8}
    mosaic = {"mosaic": 0.5, "flip": True, "scale": [0.8, 1.2]}
    check_data(
        {
            "name": "boxes",
            "model": model,
            "task": {"name": "detect", "augmentation": mosaic},
            "processor": {"name": "image", "size": [32, 32], "resize": "pad"},
            "data": {"name": "boxes", "path": str(write_coco(tmp_path / "data", 40))},
            "training": {"batch_size": 4, "steps": 3},
            "machine": {"device": "cpu", "threads": 1},
        }
    )
