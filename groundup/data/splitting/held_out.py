"""What a source does with the splits of its examples: draws those that are not named, leaves out
what is in two of them, and says what is missing.

Legend: N examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from groundup.core import seeding
from groundup.core.errors import DataError
from groundup.core.seeding import scramble
from groundup.core.values import Example, Split
from groundup.data.splitting.drawing import SplitRule, say_once, split_examples
from groundup.media.table_values import as_category

__all__ = [
    "HELD_OUT_FIRST",
    "are_texts",
    "draw_missing",
    "keep_some",
    "label_counts",
    "leave_out_repeated",
    "lengths_of",
    "refuse_empty",
    "refuse_lost",
    "refuse_unknown",
    "warn_of_other_labels",
    "warn_of_repeated",
]

HELD_OUT_FIRST: tuple[Split, ...] = ("test", "validation", "train")
Item = TypeVar("Item")
_LISTED = 50  # labels that a data card lists, however few examples each has


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
    of validation what does with the test; and say how many.

    Returns:
        How many were left out.
    """
    # the test first: what it has is known to nobody, and validation comes before training
    there = [split for split in HELD_OUT_FIRST if found.setdefault(split, [])]
    if len(there) < 2:  # as keys are often hashes of whole texts, none are made for nothing
        return 0
    left_out = 0
    taken: set[str] = set()
    for split in there:
        every = [(item, tuple(keys(item))) for item in found[split]]
        found[split] = [item for item, own in every if taken.isdisjoint(own)]
        left_out += len(every) - len(found[split])
        taken.update(key for _, own in every for key in own)
    if left_out:
        what = "example is left out, being" if left_out == 1 else "examples are left out, being"
        say_once(f"{left_out:,} {what} held out as well: in validation, or in the test")
    return left_out


def warn_of_repeated(rows: Mapping[Split, Iterable[Hashable]], what: str) -> list[str]:
    """Return a warning of how many training rows are in validation or in the test as well; none
    where there are none. For what may be alike by chance, and so stays.

    Args:
        rows: What the rows of each split hold.
        what: What to call them.
    """
    held_out = {hash(row) for split in rows if split != "train" for row in rows[split]}
    repeated = sum(hash(row) in held_out for row in rows["train"]) if held_out else 0
    if not repeated:
        return []
    return [
        f"{repeated:,} of the training split's {what} are in validation or in the test as well: if"
        " they are not alike by chance, remove them"
    ]


def warn_of_other_labels(
    digests: Mapping[str, str], labels: Mapping[str, Any], what: str
) -> str | None:
    """Return a warning of files that are the same and have other labels.

    Args:
        digests: Of the contents, by the names of files.
        labels: By the names of files.
        what: What to call them.
    """
    first: dict[str, str] = {}
    found = []
    for name, digest in digests.items():
        other = first.setdefault(digest, name)
        if name in labels and other in labels and labels[name] != labels[other]:
            found.append((other, name))
    if not found:
        return None
    one, two = found[0]
    return (
        f"{len(found):,} {what} are the same as another one with another label, such as {one} and"
        f" {two}: remove the wrong one"
    )


def draw_missing(
    found: dict[Split, list[Item]],
    named: Iterable[Split],
    keys: Callable[[Item], Iterable[str]],
    label: Callable[[Item], Any],
    rule: SplitRule,
    time: Callable[[Item], float] = lambda item: 0.0,
) -> dict[Split, list[Item]]:
    """Return the splits; those that are not named are drawn from what is named for training.

    Args:
        found: The items named for each split.
        named: The splits that have items of their own.
        keys: What an item shares with others that must be on its side, one key at least.
        label: What is predicted of an item, or None.
        rule: How splits are drawn.
        time: When an item was, where the latest are held out: what shares a key with one of these
            is left out of training.
    """
    every = found["train"]
    drawn = split_examples(
        [tuple(keys(item)) for item in every],
        [label(item) for item in every],
        rule.without(named),
        [time(item) for item in every],
    )
    sides: dict[Split, list[Item]] = {"train": [], "validation": [], "test": []}
    for item, side in zip(every, drawn, strict=True):
        sides[side].append(item)
    for split in ("validation", "test"):
        sides[split] += found.get(split, [])
    if rule.latest:
        leave_out_repeated(sides, keys)
    return sides


def refuse_empty(
    split: Split,
    where: str,
    rule: SplitRule,
    named: Iterable[Split] = (),
    groups: Iterable[str] = (),
    shared: str = "group",
) -> DataError:
    """Return the error for a split that nothing fell into.

    Args:
        split: The split.
        where: What to call the source.
        rule: How splits are drawn.
        named: The splits that have examples of their own, and are not drawn.
        groups: What examples are drawn by, where it is known.
        shared: What those of one group have in common, such as a first question.
    """
    if split in named or (split == "train" and "validation" in named):
        problem = (
            f"nothing is left for {split}, without what cannot be used and what is held out as well"
        )
        return DataError(where, problem, "Give other examples to train on than to hold out")
    problem = f"nothing is left for {split} ({rule})"
    # a remedy that is tried: by this seed, some groups are on either side
    known = set(groups)
    seed = rule.seed_with(split, known) if split != "train" else None
    if len(known) == 1:
        problem += f": there is a single {shared}, all of which is on one side"
    elif known:
        problem += f": of {len(known):,} different {shared}s none was drawn"
    ways = ["Give more examples or more groups, change data.fraction"]
    if seed is not None:
        ways = [f"Set data.seed: {seed}, which draws some"]
    elif known:
        ways = ["Give more examples"]
    ways.append("or name held-out examples as data.validation")
    if split == "validation" and known:
        ways.append("or train without any: data.fraction: 0")
    return DataError(where, problem, ", ".join(ways))


def refuse_lost(labels: Iterable[Any], kept: Iterable[Any], where: str) -> None:
    """Raise an error where nothing is left of a class once what cannot be read was left out.

    Raises:
        DataError: Naming the class.
    """
    if lost := sorted({str(label) for label in labels} - {str(label) for label in kept}):
        raise DataError(
            where,
            f"every file of class {lost[0]!r} is unreadable, so that leaving them out leaves none"
            " of it",
            "Fix or replace the files, or remove the class",
        )


def refuse_unknown(train: Iterable[str], held_out: Iterable[str], where: str) -> None:
    """Raise an error where a class occurs only among held-out examples, which no model can have
    learned.

    Raises:
        DataError: Naming the class and those that can be learned.
    """
    known = set(train)
    if unknown := sorted(set(held_out) - known):
        raise DataError(
            where,
            f"the class {unknown[0]!r} has held-out examples only; training has"
            f" {', '.join(sorted(known)[:12])}",
            "Give it training examples, remove it, or draw with another data.seed",
        )


def are_texts(targets: Sequence[Any]) -> bool:
    """Return whether targets are texts, such as transcripts, and no classes: most are there once.
    Thousands of them would fill pages of a data card."""
    if not all(isinstance(target, str) for target in targets):
        return False
    different = len(set(targets))
    return different > max(_LISTED, len(targets) / 2)


def label_counts(examples: Sequence[Example]) -> dict[str, Any]:
    """Return how many examples there are, in all and of each label; one with a list of labels
    counts for each."""
    targets = (e.target if isinstance(e.target, list) else [e.target] for e in examples)
    counted = Counter(as_category(label) for labels in targets for label in labels)
    if are_texts([example.target for example in examples]):
        return {"examples": len(examples), "different_targets": len(counted)}
    return {"examples": len(examples), "labels": dict(sorted(counted.items()))}


def lengths_of(values: Iterable[float], unit: str) -> dict[str, float]:
    """Return the least, the median and the greatest length, named by their unit."""
    found = np.asarray(list(values), np.float64)
    if not len(found):
        return {}
    numbers = {"min": found.min(), "median": np.median(found), "max": found.max()}
    return {f"{name}_{unit}": round(float(value), 3) for name, value in numbers.items()}
