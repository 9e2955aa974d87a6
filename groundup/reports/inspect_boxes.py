"""What ``groundup data inspect`` shows of boxes: how many there are of each class, and how large a
model gets them.

Legend: K boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import RenderableType

from groundup.contracts.processors import LabelProcessor
from groundup.core.values import IGNORED, Batch, Split
from groundup.reports.formatting import number
from groundup.reports.inspect_texts import PERCENTILES
from groundup.reports.tables import Grid

__all__ = ["list_boxes", "sides_of", "warn_of_small_boxes"]

# A feature map of a detector's finest level is as a rule 8 times as coarse as its input.
_SMALL = 8
_MANY = 0.1


class _Seen(Protocol):
    """What was seen of a split."""

    @property
    def split(self) -> Split:
        """Its name."""

    @property
    def sides(self) -> list[float]:
        """(K,) of each box, the side of a square as large, in pixels of what a model reads."""


def sides_of(batch: Batch) -> list[float]:
    """Return the side of a square as large as each box of an encoded batch."""
    there = batch["labels"] != IGNORED
    boxes = batch["boxes"][there]
    found: list[float] = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt().tolist()
    return found


def list_boxes(
    splits: Sequence[_Seen], processor: LabelProcessor, card: Mapping[str, Any]
) -> Iterator[RenderableType]:
    """Yield how a model numbers the classes, where files number them too, and how large it gets the
    boxes.

    Args:
        splits: What was seen of each split.
        processor: The run's.
        card: The data card.
    """
    if processor.targets.kind != "boxes":
        return
    ids = card.get("class_ids", {})
    if ids:
        # Shifted numbers of classes are the commonest reason of a detector that finds nothing.
        known = [(str(n), label, ids.get(label, "")) for n, label in enumerate(processor.labels)]
        yield Grid.of("Numbers of classes", ("in the model", "class", "in the files"), known)
    rows = []
    for seen in splits:
        if seen.sides:
            steps = [min(seen.sides), *np.percentile(seen.sides, PERCENTILES), max(seen.sides)]
            rows.append((seen.split, *(number(float(step)) for step in steps)))
    if rows:
        columns = ("split", "least", *(f"{p}%" for p in PERCENTILES), "most")
        title = "Boxes as the model gets them: square root of the area, in pixels"
        yield Grid.of(title, columns, rows, numbers=1)


def warn_of_small_boxes(splits: Sequence[_Seen]) -> list[str]:
    """Return a warning where many boxes are too small to be found."""
    train = splits[0].sides
    small = sum(side < _SMALL for side in train)
    if not train or small <= _MANY * len(train):
        return []
    return [
        f"{small / len(train):.0%} of the training boxes are smaller than {_SMALL} x {_SMALL}"
        " pixels as the model gets them, and may never be found: raise processor.size, or cut"
        " pictures into parts"
    ]
