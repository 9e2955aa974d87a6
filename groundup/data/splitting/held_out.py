"""Which labelled examples are held out: a keyed share, or one of several folds, with what belongs
together on one side.

Legend: N examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.seeding import scramble
from groundup.core.values import Example, Split
from groundup.data.splitting.hash_split import UnionFind, position_of, split_of

__all__ = [
    "HELD_OUT_FIRST",
    "SplitRule",
    "draw_missing",
    "keep_some",
    "label_counts",
    "leave_out_repeated",
    "lengths_of",
    "refuse_empty",
    "refuse_lost",
    "refuse_unknown",
    "split_examples",
]

HELD_OUT_FIRST: tuple[Split, ...] = ("test", "validation", "train")
# held-out groups of a class by chance, from which on none at all is an accident to correct
_EXPECTED_OF_CLASS = 3
Item = TypeVar("Item")


class SplitRule(NamedTuple):
    """How examples are held out: shares of the groups, or with ``folds`` those of fold number
    ``fold``, from 0."""

    fraction: float
    seed: int
    test: float = 0.0
    folds: int | None = None
    fold: int = 0

    def side_of(self, group: str) -> Split:
        """Return the side of one group by its keyed hash."""
        return split_of(group, self.fraction, self.seed, self.test)

    def splits(self, named: Iterable[Split]) -> tuple[Split, ...]:
        """Return the splits there are where some have examples of their own."""
        there = set(named)
        if self.fraction or self.folds:
            there.add("validation")
        if self.test:
            there.add("test")
        return ("train", *(split for split in ("validation", "test") if split in there))

    def without(self, named: Iterable[Split]) -> SplitRule:
        """Return the rule without the shares of splits that have examples of their own."""
        there = set(named)
        rule = self
        if "validation" in there:
            rule = rule._replace(fraction=0.0, folds=None)
        return rule._replace(test=0.0) if "test" in there else rule

    def problem(self, changed: Sequence[str]) -> str | None:
        """Return what contradicts itself, as ``"problem. remedy"``, or None.

        Args:
            changed: Those of fraction and fold that were given.
        """
        if self.folds is None:
            idle = "fold has no effect without folds. Give folds, or remove it"
            return idle if "fold" in changed else None
        if "fraction" in changed:
            return "fraction has no effect with folds. Remove one of them"
        if self.fold >= self.folds:
            return f"fold {self.fold} of {self.folds}; allowed: 0 to {self.folds - 1}. Correct it"
        return None

    def __str__(self) -> str:
        if self.folds:
            return f"fold {self.fold} of {self.folds}"
        return f"fraction {self.fraction}" + (f", test {self.test}" if self.test else "")


def split_examples(
    keys: Sequence[tuple[str, ...]], labels: Sequence[Any], rule: SplitRule
) -> list[Split]:
    """Return the side of each example; examples that share a key, such as a speaker or a text, are
    on one side.

    A share is drawn by a keyed hash of each group's name, so that more data moves none to the other
    side. A class that would be on one side only has its nearest group moved. Folds are as even as
    can be, of each label too: groups are dealt out in turn, label by label, in the order of their
    hashes.

    Args:
        keys: (N,) what each example belongs to, one name at least.
        labels: (N,) what is predicted, or None; folds are even in it.
        rule: What is held out.
    """
    first_with: dict[str, int] = {}
    if all(len(own) == 1 for own in keys):
        # what most sources have, and several times as quick as joining sets
        group_of = [first_with.setdefault(own[0], number) for number, own in enumerate(keys)]
    else:
        sets = UnionFind()
        for number, own in enumerate(keys):
            for key in own:
                sets.join(first_with.setdefault(key, number), number)
        group_of = [sets.find(number) for number in range(len(keys))]
    names: dict[int, str] = {}
    for first, own in zip(group_of, keys, strict=True):
        names[first] = min(names.get(first, own[0]), *own)
    sides: dict[int, Split]
    if rule.folds is None:
        sides = {first: rule.side_of(name) for first, name in names.items()}
        if rule.fraction:
            _put_classes_on_both_sides(sides, names, group_of, labels, rule)
    else:
        order = sorted(
            names,
            key=lambda first: (str(labels[first]), seeding.key(rule.seed, f"fold {names[first]}")),
        )
        held_out = {first for place, first in enumerate(order) if place % rule.folds == rule.fold}
        sides = {first: "validation" if first in held_out else "train" for first in order}
        # a test share comes out of what the fold leaves, and is the same in every fold's run
        for first in set(order) - held_out if rule.test else ():
            sides[first] = split_of(f"test {names[first]}", 0.0, rule.seed, rule.test)
    return [sides[first] for first in group_of]


def _put_classes_on_both_sides(
    sides: dict[int, Split],
    names: dict[int, str],
    group_of: Sequence[int],
    labels: Sequence[Any],
    rule: SplitRule,
) -> None:
    """Move single groups so that each class is trained on and, where the share is large enough,
    held out."""
    classes = {label for label in labels if isinstance(label, str | int)}
    # Only where each class would have some by chance: the split of a class alone must not depend on
    # the others, and numbers to predict have nearly as many values as there are examples.
    if rule.fraction * len(names) < _EXPECTED_OF_CLASS * len(classes):
        return
    known = {
        (label, sides[first])
        for label, first in zip(labels, group_of, strict=True)
        if isinstance(label, str | int)
    }
    for label in sorted(classes, key=str):
        missing = [side for side in ("train", "validation") if (label, side) not in known]
        groups = {first for first, own in zip(group_of, labels, strict=True) if own == label}
        if len(groups) < 2 or not missing:
            continue
        # the nearest to the border moves: with another share it would be there by itself
        ordered = sorted(groups, key=lambda first: position_of(names[first], rule.seed))
        if missing == ["train"]:
            sides[ordered[-1]] = "train"
        elif missing == ["validation"]:
            sides[next(first for first in ordered if sides[first] == "train")] = "validation"


def keep_some(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """Return at most ``limit`` of the items, spread over all of them, in their order.

    Files in folders come sorted by class: the first of them would all be of one.
    """
    if limit is None or len(items) <= limit:
        return list(items)
    order = scramble(np.arange(len(items)), seeding.key(seed, "limit"))
    return [items[number] for number in sorted(np.argsort(order)[:limit].tolist())]


def leave_out_repeated(
    found: dict[Split, list[Item]], keys: Callable[[Item], Iterable[str]]
) -> int:
    """Take out of training, in place, what shares a key with something named as held out, and out
    of validation what does with the test.

    Returns:
        How many were left out.
    """
    # the test first: what it has is known to nobody, and validation comes before training
    left_out = 0
    taken: set[str] = set()
    for split in HELD_OUT_FIRST:
        every = found.get(split, [])
        found[split] = [item for item in every if taken.isdisjoint(keys(item))]
        left_out += len(every) - len(found[split])
        taken.update(key for item in every for key in keys(item))
    return left_out


def draw_missing(
    found: dict[Split, list[Item]],
    named: Iterable[Split],
    keys: Callable[[Item], Iterable[str]],
    label: Callable[[Item], Any],
    rule: SplitRule,
) -> dict[Split, list[Item]]:
    """Return the splits; those that are not named are drawn from what is named for training.

    Args:
        found: The items named for each split.
        named: The splits that have items of their own.
        keys: What an item shares with others that must be on its side, one key at least.
        label: What is predicted of an item, or None.
        rule: How splits are drawn.
    """
    every = found["train"]
    drawn = split_examples(
        [tuple(keys(item)) for item in every], [label(item) for item in every], rule.without(named)
    )
    sides: dict[Split, list[Item]] = {"train": [], "validation": [], "test": []}
    for item, side in zip(every, drawn, strict=True):
        sides[side].append(item)
    for split in ("validation", "test"):
        sides[split] += found.get(split, [])
    return sides


def refuse_empty(
    split: Split, where: str, rule: SplitRule, named: Iterable[Split] = ()
) -> DataError:
    """Return the error for a split that nothing fell into; ``named`` are those that have examples
    of their own, and are not drawn."""
    if split in named or (split == "train" and "validation" in named):
        problem = (
            f"nothing is left for {split}, without what cannot be used and what is held out as well"
        )
        return DataError(where, problem, "Give other examples to train on than to hold out")
    remedy = (
        "Give more examples or more groups, change data.fraction, or name held-out examples as"
        " data.validation"
    )
    return DataError(where, f"nothing is left for {split} ({rule})", remedy)


def refuse_lost(labels: Iterable[Any], kept: Iterable[Any], where: str) -> None:
    """Raise an error where nothing is left of a class once what cannot be read was left out.

    Raises:
        DataError: Naming the class.
    """
    if lost := sorted({str(label) for label in labels} - {str(label) for label in kept}):
        problem = (
            f"every file of class {lost[0]!r} is unreadable, so that leaving them out leaves none"
            " of it"
        )
        raise DataError(where, problem, "Fix or replace the files, or remove the class")


def refuse_unknown(train: Iterable[str], held_out: Iterable[str], where: str) -> None:
    """Raise an error where a class occurs only among held-out examples, which no model can have
    learned.

    Raises:
        DataError: Naming the class and those that can be learned.
    """
    known = set(train)
    if unknown := sorted(set(held_out) - known):
        problem = (
            f"the class {unknown[0]!r} has held-out examples only; training has"
            f" {', '.join(sorted(known)[:12])}"
        )
        remedy = "Give it training examples, remove it, or draw with another data.seed"
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
