"""The rows of a head by the names of their classes: what two models both know is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from groundup.media.table_values import as_category

__all__ = ["describe_rows", "keep_rows"]


def keep_rows(
    before: Sequence[str],
    after: Sequence[str],
    base: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return a head's tensors for other classes: those of classes that the base has as they are
    there, the others as drawn.

    What has no row for each class, such as a layer before, is the base's where it fits.

    Args:
        before: The base's classes, in the order of its outputs.
        after: The model's own.
        base: The base's head by name.
        own: The model's, freshly drawn.
    """
    places = {as_category(label): row for row, label in enumerate(before)}
    shared = [
        (row, places[name]) for row, name in enumerate(map(as_category, after)) if name in places
    ]
    found = {}
    for name, drawn in own.items():
        found[name] = drawn
        there = base.get(name)
        if there is None or there.ndim != drawn.ndim:
            continue
        axis = _axis(there.shape, drawn.shape, len(before), len(after))
        if axis is not None:
            rows, sources = (torch.tensor(each) for each in zip(*shared, strict=True))
            kept = there.to(drawn).index_select(axis, sources.to(drawn.device))
            found[name] = drawn.index_copy(axis, rows.to(drawn.device), kept)
        elif there.shape == drawn.shape:
            found[name] = there.to(drawn)
    return found


def _axis(there: Sequence[int], here: Sequence[int], before: int, after: int) -> int | None:
    """Return which dimension of a tensor has a place for each class; None: none has."""
    for axis, (old, new) in enumerate(zip(there, here, strict=True)):
        rest = [*there[:axis], *there[axis + 1 :]] == [*here[:axis], *here[axis + 1 :]]
        if (old, new) == (before, after) and rest:
            return axis
    return None


def describe_rows(before: Sequence[str], after: Sequence[str]) -> str:
    """Return in words which classes keep their rows, which are new and which are dropped; an empty
    text where the two have none in common."""
    there = {as_category(label): label for label in before}
    here = {as_category(label): label for label in after}
    kept = [label for name, label in here.items() if name in there]
    if not kept:
        return ""
    new = [label for name, label in here.items() if name not in there]
    dropped = [label for name, label in there.items() if name not in here]
    words = f"head: kept the rows of {_some(kept)}"
    words += f"; new, from random numbers: {_some(new)}" if new else "; none is new"
    return words + (f"; dropped: {_some(dropped)}" if dropped else "; none is dropped")


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 12} more" if len(labels) > 12 else ""
    return f"{len(labels)} ({', '.join(labels[:12])}{more})"
