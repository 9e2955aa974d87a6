"""A sheet of pictures: as they are, and as training will see them.

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

from groundup.contracts.tasks import Task
from groundup.core.values import Batch, Example
from groundup.media.images import draw_sheet

__all__ = ["VERSIONS", "one_of_each_class", "write_sheet"]

# columns of the sheet next to the originals
VERSIONS = 7


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
    for version in range(VERSIONS if task.augments else 0):
        numbers = np.arange(len(chosen), dtype=np.int64) + version * len(examples)
        # any others will do; 7919 is a prime, so that neighbours get partners far apart
        partners = [examples[int(place)] for place in (numbers * 7919 + 13) % len(examples)]
        encode = partial(_encode_batch, task, partners, processor)
        changed = task.augment(batch, numbers, encode, processor, seed)
        columns.append((f"augmented {version + 1}", changed))
    drawn = [(_to_pictures(each, processor), _caption(each, processor)) for _, each in columns]
    rows = [
        [(pictures[row], captions[row]) for pictures, captions in drawn]
        for row in range(len(chosen))
    ]
    draw_sheet(rows, [title for title, _ in columns], path)


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
        ranked.append((turn[label], place))
        turn[label] += 1
    return [examples[place] for _, place in sorted(ranked)[:count]]


def _to_pictures(batch: Batch, processor: Any) -> NDArray[np.float32]:
    """Return (B, H, W, C), 0 to 1."""
    shown: Tensor = processor.inputs.to_pixels(batch["inputs"])
    return shown.clamp(0, 1).permute(0, 2, 3, 1).float().numpy()


def _caption(batch: Batch, processor: Any) -> list[str]:
    own = [processor.labels[int(label)] for label in batch["labels"]]
    if "mix" not in batch:
        return own
    other = [processor.labels[int(label)] for label in batch["labels_2"]]
    captions = []
    for one, two, share in zip(own, other, batch["mix"].tolist(), strict=True):
        # a share that would be shown as 100% was not mixed
        captions.append(one if share > 0.995 else f"{share:.0%} {one} {1 - share:.0%} {two}")
    return captions
