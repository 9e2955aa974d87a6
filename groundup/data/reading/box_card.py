"""What a data card says of boxes, and which classes there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from groundup.contracts.detection import Boxes
from groundup.core.values import Example
from groundup.data.reading.marked_pictures import Marked
from groundup.data.splitting.held_out import lengths_of

__all__ = ["describe_boxes", "describe_marked", "labels_in", "rarest_of"]

_NAMED = 5  # of each kind of problem
_LISTED = 20  # classes that a warning names


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


def describe_marked(marked: Marked, boxed: Collection[str]) -> dict[str, Any]:
    """Return what the data card says of the files: the numbers that classes have in them, what was
    changed, and what was set aside.

    Args:
        marked: What the files say.
        boxed: The classes that have boxes.
    """
    card: dict[str, Any] = {}
    warnings = list(marked.warnings)
    if marked.classes:
        # Models number the classes from 0 in the order of their names; files as they like.
        card["class_ids"] = {name: number for number, name in marked.classes.items()}
    # Told rather than refused: COCO's own list has classes that a part of it never shows.
    without = [name for name in card.get("class_ids", {}) if name not in boxed]
    if without:
        named = ", ".join(without[:_LISTED])
        warnings.append(f"classes without a box, which are not learned: {len(without)} ({named})")
    if notes := +marked.notes:
        card["met_in_files"] = dict(sorted(notes.items()))
    aside: dict[str, list[str]] = {}
    for each in marked.problems:
        aside.setdefault(each.kind, []).append(f"{each.where}: {each.problem}")
    card["set_aside"] = {
        kind: {"count": len(lines), "first": lines[:_NAMED]} for kind, lines in aside.items()
    }
    warnings += [f"left out: {len(lines):,} {kind}" for kind, lines in aside.items()]
    if warnings:
        card["warnings"] = warnings
    return card
