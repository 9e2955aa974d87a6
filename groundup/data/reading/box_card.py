"""What a data card says of boxes, and which classes there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from groundup.contracts.detection import Boxes
from groundup.core.values import Example
from groundup.data.splitting.held_out import lengths_of

__all__ = ["describe_boxes", "labels_in", "rarest_of"]


def labels_in(examples: Sequence[Example]) -> set[str]:
    """Return the classes of all boxes."""
    return {label for example in examples for label in example.target.labels}


def rarest_of(examples: Sequence[Example]) -> Any:
    """Return what gives of an example its rarest class, or None where it has no box: pictures are
    drawn so that each class is trained on."""
    counts = Counter(label for example in examples for label in example.target.labels)

    def rarest(example: Example) -> str | None:
        labels = example.target.labels
        return min(labels, key=lambda label: (counts[label], label)) if labels else None

    return rarest


def describe_boxes(examples: Sequence[Example]) -> dict[str, Any]:
    """Return what the data card says of a split: how many boxes of each class there are, how large
    they are, and how many are in a picture."""
    targets: list[Boxes] = [example.target for example in examples]
    counts = Counter(label for target in targets for label in target.labels)
    areas = np.concatenate([np.zeros(0, np.float32), *(target.areas for target in targets)])
    # COCO's borders: 32 x 32 and 96 x 96 pixels.
    small = int((areas < 32**2).sum())
    large = int((areas >= 96**2).sum())
    many = [len(target.labels) for target in targets]
    return {
        "examples": len(examples),
        "without_boxes": many.count(0),
        "boxes": int(sum(many)),
        "crowds": int(sum(target.crowd.sum() for target in targets)),
        "labels": dict(sorted(counts.items())),
        "box_sizes": {"small": small, "medium": len(areas) - small - large, "large": large},
        "box_side_px": lengths_of(np.sqrt(areas).tolist(), "px"),
        "boxes_a_picture": lengths_of(many, "boxes"),
    }
