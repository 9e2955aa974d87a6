"""A sheet of pictures: as they are, and as training will see them; with the boxes in them.

Shape legend: B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groundup.contracts.data import DrawsViews
from groundup.contracts.detection import Boxes
from groundup.contracts.tasks import Task
from groundup.core.values import IGNORED, Batch, Example
from groundup.media.picture_drawing import draw_boxes, draw_sheet

__all__ = ["VERSIONS", "one_of_each_class", "write_sheet"]

# columns of the sheet next to the originals
VERSIONS = 7
# Pixels that pictures with boxes are shown with, at least: names of classes need room.
_SIDE = 192
_COLOURS = (
    "#cf222e",
    "#0969da",
    "#1a7f37",
    "#8250df",
    "#bf3989",
    "#9a6700",
    "#0a7d91",
    "#57606a",
)


def write_sheet(
    examples: Sequence[Example],
    task: Task,
    processor: Any,
    path: Path,
    count: int = 5,
    seed: int = 0,
) -> None:
    """Write a PNG: a row for each example, the original first, then as training will see it, each
    time another way.

    Args:
        examples: Of the training split; the first of each class is taken, then the second, ...
        task: Encodes and augments.
        processor: The run's.
        path: The PNG.
        count: How many examples to show.
        seed: The run's.
    """
    chosen = one_of_each_class(examples, count)
    batch = _encode_batch(task, chosen, processor)
    columns = [("original", batch)]
    views = task.views(seed) if isinstance(task, DrawsViews) else None
    for version in range(VERSIONS if task.augments else 0):
        numbers = np.arange(len(chosen), dtype=np.int64) + version * len(examples)
        find_partners = partial(_encode_partners, task, examples, processor, numbers)
        if views is not None:
            batch = _encode_batch(task, views(chosen, numbers, ""), processor)
        changed = task.augment(batch, numbers, find_partners, processor, seed)
        columns.append((f"augmented {version + 1}", changed))
    drawn = [(_draw_pictures(each, processor), _caption(each, processor)) for _, each in columns]
    rows = [
        [(pictures[row], captions[row]) for pictures, captions in drawn]
        for row in range(len(chosen))
    ]
    draw_sheet(rows, [title for title, _ in columns], path)


def _encode_partners(
    task: Task,
    examples: Sequence[Example],
    processor: Any,
    numbers: NDArray[np.int64],
    which: int = 0,
) -> Batch:
    # any others will do; 7919 is a prime, so that neighbours get partners far apart
    places = (numbers * 7919 + 13 + 101 * which) % len(examples)
    return _encode_batch(task, [examples[int(place)] for place in places], processor)


def _encode_batch(task: Task, examples: Sequence[Example], processor: Any) -> Batch:
    batch = task.encode(examples, processor)
    assert isinstance(batch, dict)
    return batch


def one_of_each_class(examples: Sequence[Example], count: int) -> list[Example]:
    """Return so many examples: the first of each class, then the second of each, and so on."""
    turn: Counter[str] = Counter()
    ranked = []
    for place, example in enumerate(examples):
        label = str(example.target)
        # Pictures with other things in them than those shown before, and none of two boxes alike.
        if isinstance(example.target, Boxes):
            label = ", ".join(sorted(set(example.target.labels)))
        ranked.append((turn[label], place))
        turn[label] += 1
    return [examples[place] for _, place in sorted(ranked)[:count]]


def _to_pictures(batch: Batch, processor: Any) -> NDArray[np.float32]:
    """Return (B, H, W, C), 0 to 1."""
    shown: Tensor = processor.inputs.to_pixels(batch["inputs"])
    return shown.clamp(0, 1).permute(0, 2, 3, 1).float().numpy()


def _draw_pictures(batch: Batch, processor: Any) -> Sequence[NDArray[np.float32]]:
    """Return pictures (H, W, C), 0 to 1, with the boxes in them drawn where the model gets them;
    regions of many things in grey."""
    pictures = _to_pictures(batch, processor)
    if "boxes" not in batch:
        return list(pictures)
    factor = max(1.0, _SIDE / max(pictures.shape[1:3]))
    found = []
    for row, picture in enumerate(pictures):
        there = batch["labels"][row] != IGNORED
        numbers = batch["labels"][row][there].tolist()
        colours = [_COLOURS[number % (len(_COLOURS) - 1)] for number in numbers]
        for place, crowd in enumerate(batch["crowd"][row][there].tolist()):
            if crowd:
                colours[place] = _COLOURS[-1]
        values = (picture * 255).round().astype(np.uint8)
        drawn = draw_boxes(
            values.squeeze(2) if values.shape[2] == 1 else values,
            batch["boxes"][row][there].tolist(),
            [processor.labels[number] for number in numbers],
            colours,
            factor,
        )
        found.append((drawn / 255).astype(np.float32))
    return found


def _caption(batch: Batch, processor: Any) -> list[str]:
    if "boxes" in batch:
        counts = (batch["labels"] != IGNORED).sum(1).tolist()
        return [f"{count} boxes" if count != 1 else "1 box" for count in counts]
    if "labels" not in batch:
        return [""] * len(batch["inputs"])
    own = [processor.labels[int(label)] for label in batch["labels"]]
    if "mix" not in batch:
        return own
    other = [processor.labels[int(label)] for label in batch["labels_2"]]
    captions = []
    for one, two, share in zip(own, other, batch["mix"].tolist(), strict=True):
        # a share that would be shown as 100% was not mixed
        captions.append(one if share > 0.995 else f"{share:.0%} {one} {1 - share:.0%} {two}")
    return captions
