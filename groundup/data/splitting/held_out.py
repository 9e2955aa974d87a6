"""Which labelled examples are held out: a keyed share, or one of several folds, with what belongs
together on one side.

Legend: N examples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.values import Example, Split
from groundup.data.splitting.hash_split import UnionFind, split_of

__all__ = [
    "Drawing",
    "draw",
    "label_counts",
    "lengths_of",
    "problem_with_drawing",
    "refuse_empty",
    "refuse_lost",
    "refuse_unknown",
]


class Drawing(NamedTuple):
    """How examples are held out: a share of the groups, or with ``folds`` those of fold number
    ``fold``, from 0."""

    fraction: float
    seed: int
    folds: int | None = None
    fold: int = 0


def draw(keys: Sequence[tuple[str, ...]], labels: Sequence[Any], how: Drawing) -> list[Split]:
    """Return the side of each example; examples that share a key, such as a speaker or a text, are
    on one side.

    A share is drawn by a keyed hash of each group's name, so that more data moves none to the other
    side. Folds are as
    even as can be, of each label too: groups are dealt out in turn, label by label, in the order of
        their hashes.

    Args:
        keys: (N,) what each example belongs to, one name at least.
        labels: (N,) what is predicted; folds are even in it.
        how: What is held out.
    """
    sets, first_with = UnionFind(), dict[str, int]()
    for number, own in enumerate(keys):
        for key in own:
            sets.join(first_with.setdefault(key, number), number)
    members: dict[int, list[int]] = defaultdict(list)
    for number in range(len(keys)):
        members[sets.find(number)].append(number)
    names = {
        first: min(key for number in group for key in keys[number])
        for first, group in members.items()
    }
    if how.folds is None:
        held_out = {
            first
            for first, name in names.items()
            if split_of(name, how.fraction, how.seed) == "validation"
        }
    else:
        order = sorted(
            names,
            key=lambda first: (str(labels[first]), seeding.key(how.seed, f"fold {names[first]}")),
        )
        held_out = {first for place, first in enumerate(order) if place % how.folds == how.fold}
    return [
        "validation" if sets.find(number) in held_out else "train" for number in range(len(keys))
    ]


def problem_with_drawing(how: Drawing, changed: Sequence[str], named: str | None) -> str | None:
    """Return what contradicts itself in how examples are held out, as ``"problem. remedy"``, or
    None.

    Args:
        how: What the recipe says.
        changed: Those of validation_fraction, split_seed, folds and fold that were given.
        named: The setting that names held-out examples, if one does; then nothing is drawn.
    """
    if named and changed:
        return f"{changed[0]} has no effect with {named}. Remove one of them"
    if how.folds is None and "fold" in changed:
        return "fold has no effect without folds. Give folds, or remove it"
    if how.folds is not None and "validation_fraction" in changed:
        return "validation_fraction has no effect with folds. Remove one of them"
    if how.folds is not None and how.fold >= how.folds:
        return f"fold {how.fold} of {how.folds}; allowed: 0 to {how.folds - 1}. Correct it"
    return None


def refuse_empty(split: Split, where: str, how: Drawing | None) -> DataError:
    """Return the error for a split that nothing fell into; ``how`` is None where held-out examples
    are named."""
    if how is None:
        problem = (
            f"nothing is left for {split}, without what cannot be used and what is held out as well"
        )
        return DataError(where, problem, "Give other examples to train on than to hold out")
    drawn = (
        f"fold {how.fold} of {how.folds}" if how.folds else f"validation_fraction {how.fraction}"
    )
    remedy = (
        "Give more examples or more groups, change the share that is held out, or name held-out"
        " examples"
    )
    return DataError(where, f"nothing is left for {split} ({drawn})", remedy)


def refuse_lost(labels: Iterable[Any], kept: Iterable[Any], where: str) -> None:
    """Raise an error where nothing is left of a class once what cannot be read was set aside.

    Raises:
        DataError: Naming the class.
    """
    if lost := sorted({str(label) for label in labels} - {str(label) for label in kept}):
        problem = (
            f"every file of class {lost[0]!r} is unreadable, so that setting them aside leaves none"
            " of it"
        )
        raise DataError(where, problem, "Mend or replace the files, or remove the class")


def refuse_unknown(train: Iterable[str], validation: Iterable[str], where: str) -> None:
    """Raise an error where a class occurs only among held-out examples, which no model can have
    learned.

    Raises:
        DataError: Naming the class and those that can be learned.
    """
    known = set(train)
    if unknown := sorted(set(validation) - known):
        problem = (
            f"the class {unknown[0]!r} has held-out examples only; training has"
            f" {', '.join(sorted(known)[:12])}"
        )
        remedy = "Give it training examples, remove it, or draw with another data.split_seed"
        raise DataError(where, problem, remedy)


def label_counts(examples: Sequence[Example]) -> dict[str, Any]:
    """Return how many examples there are, in all and of each label; one with a list of labels
    counts for each."""
    targets = (e.target if isinstance(e.target, list) else [e.target] for e in examples)
    counted = Counter(str(label) for labels in targets for label in labels)
    return {"examples": len(examples), "labels": dict(sorted(counted.items()))}


def lengths_of(values: Iterable[float], unit: str) -> dict[str, float]:
    """Return the least, the median and the greatest length, named by their unit."""
    found = np.asarray(list(values), np.float64)
    if not len(found):
        return {}
    numbers = {"min": found.min(), "median": np.median(found), "max": found.max()}
    return {f"{name}_{unit}": round(float(value), 3) for name, value in numbers.items()}
