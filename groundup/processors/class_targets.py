"""Classes to be predicted, as tensors: one for an example, any number, or one of each box in it.

Learned from the training split. Legend: N examples, K classes.
"""

from __future__ import annotations

import math
from abc import ABC
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor

from groundup.contracts.detection import Boxes
from groundup.contracts.processors import Targets
from groundup.core.errors import DataError, did_you_mean
from groundup.core.values import IGNORED
from groundup.media.labels import LabelSpellings, is_missing, split_labels
from groundup.media.table_values import as_category

__all__ = ["BoxClasses", "MultiLabel", "SingleLabel"]

# Labels that nearly all differ: more of them than this, with fewer examples each.
_MANY = 20
_FEW = 3
_OTHERS = (
    "Add examples of another class, raise data.limit where it is set, or check which column, array"
    " or folder the labels are read from"
)


class _Classes(Targets, ABC):
    """Classes by number.

    Args:
        labels: The classes' names in the order of their numbers.
        counts: How many training examples each class has; empty where nobody counted.
    """

    def __init__(
        self, labels: Sequence[str], *, counts: Sequence[int] = (), notes: Sequence[str] = ()
    ) -> None:
        self.labels = tuple(labels)
        self.counts = tuple(counts)
        self.notes = tuple(notes)
        self.outputs = len(self.labels)
        # By the one spelling: runs of before have labels such as 1.0 and True.
        self._numbers = {as_category(label): number for number, label in enumerate(self.labels)}

    def counted_as(self, other: Targets) -> Self:
        """Return the same classes with the counts of another training split, 0 for a class that is
        not there."""
        found = dict(zip(map(as_category, other.labels), other.counts, strict=False))
        counts = [found.get(as_category(label), 0) for label in self.labels]
        return self._with(self.labels, counts, other.notes)

    def in_order(self, labels: Sequence[str]) -> Self:
        """Return the same classes, numbered in the order of ``labels``, which are all of them."""
        counts: Sequence[int] = ()
        if self.counts:
            counts = [self.counts[self._numbers[as_category(label)]] for label in labels]
        return self._with(labels, counts, self.notes)

    def _with(self, labels: Sequence[str], counts: Sequence[int], notes: Sequence[str]) -> Self:
        return type(self)(labels, counts=counts, notes=notes)

    def lacks(self, target: Any) -> bool:
        """Return whether an example has no label."""
        return is_missing(target)

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "labels": self.labels, "counts": self.counts}

    def _number_of(self, label: str) -> int:
        if label not in self._numbers:
            known = ", ".join(self.labels[:12])
            # The nearest number in letters is another number.
            hint = "" if _rank(label)[1] else did_you_mean(label, self.labels)
            remedy = "Correct it, or add it to the training data"
            if len(self.labels) > _MANY and sum(self.counts) < _FEW * len(self.labels):
                remedy = "To predict numbers set task: regression; or name another target"
                if _rank(self.labels[0])[0]:
                    remedy = "Name another target: nearly every example has a label of its own"
            raise DataError(
                "labels",
                f"label {label!r} is none of the training split's; {hint}known: {known}",
                remedy,
            )
        return self._numbers[label]


class SingleLabel(_Classes):
    """One of several classes, for each example."""

    # Saved with runs, as are the kinds below.
    kind = "class"

    @classmethod
    def fit(cls, targets: Iterable[Any]) -> SingleLabel:
        """Return the classes that occur: numbers in their order, words in the alphabet's.

        Raises:
            DataError: If there are fewer than two: there is nothing to tell apart.
        """
        spellings = LabelSpellings()
        found = spellings.count(targets)
        labels = sorted(found, key=_rank)
        if len(labels) < 2:
            problem = "no training example has any"
            if labels:
                problem = f"every training example has the label {labels[0]!r}"
            raise DataError("labels", f"{problem}; a classifier needs two classes or more", _OTHERS)
        counts = [found[label] for label in labels]
        return cls(labels, counts=counts, notes=[*spellings.notes(), *_note_several(labels)])

    @classmethod
    def fit_ordered(cls, targets: Iterable[Any], order: Sequence[str] | None) -> SingleLabel:
        """Return the classes that occur, from the lowest to the highest.

        Args:
            targets: Of the training examples.
            order: All the classes, the lowest first; None: they are numbers, and ordered by size.

        Raises:
            DataError: If there are fewer than two classes, a class has no place in the order, or a
                place no class.
        """
        found = cls.fit(targets)
        labels = _by_size(found.labels) if order is None else tuple(map(as_category, order))
        for label in found.labels:
            if label not in labels:
                raise DataError(
                    "recipe.task.order",
                    f"lacks the class {label!r} of the training data; it has {', '.join(labels)}",
                    "Put it in its place, from the lowest class to the highest",
                )
        for label in labels:
            if label not in found.labels:
                hint = did_you_mean(label, found.labels)
                raise DataError(
                    "recipe.task.order",
                    f"names {label!r}, which no training example is; {hint}there:"
                    f" {', '.join(found.labels[:12])}",
                    "Correct or remove it",
                )
        return found.in_order(labels)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return class numbers (N,) int64.

        Raises:
            DataError: If a label is not one of the training split's.
        """
        numbers = [self._number_of(label) for label in LabelSpellings().read(targets)]
        return torch.tensor(numbers, dtype=torch.int64)


class MultiLabel(_Classes):
    """Any number of classes for each example, given as a list or as ``"a|b"``.

    Args:
        labels: As of all classes.
        counts: As of all classes.
        notes: As of all classes.
        separator: What is between labels that are one text.
    """

    kind = "classes"

    def __init__(
        self,
        labels: Sequence[str],
        *,
        counts: Sequence[int] = (),
        notes: Sequence[str] = (),
        separator: str = "|",
    ) -> None:
        super().__init__(labels, counts=counts, notes=notes)
        self.separator = separator

    @classmethod
    def fit(cls, targets: Iterable[Any]) -> MultiLabel:
        """Return the classes that occur, and find what is between them.

        Raises:
            DataError: If there are none, or two signs could be between them.
        """
        read = list(targets)
        separator = _find_separator(read)
        several = [split_labels(target, separator) for target in read]
        spellings = LabelSpellings()
        spellings.count(chain.from_iterable(several))
        # an example that has a label twice, or in two spellings, counts once
        found = Counter(label for own in several for label in set(spellings.read(own)))
        labels = sorted(found, key=_rank)
        if not labels:
            raise DataError("labels", "no training example has any", "Check the data section")
        notes = spellings.notes()
        if separator != "|":
            notes.append(f"labels: cut at {separator!r}, which is between several of an example")
        counts = [found[label] for label in labels]
        return cls(labels, counts=counts, notes=notes, separator=separator)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, K) float32, 1 for each class that an example has.

        Raises:
            DataError: If a label is not one of the training split's.
        """
        rows = torch.zeros(len(targets), self.outputs)
        for row, target in zip(rows, targets, strict=True):
            labels = map(as_category, split_labels(target, self.separator))
            row[[self._number_of(label) for label in labels]] = 1.0
        return rows

    def lacks(self, target: Any) -> bool:
        """Return whether nothing is known of an example's labels; an empty text says that it has
        none."""
        return is_missing(target) and not (isinstance(target, str) and not target.strip())

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return super().to_json() | {"separator": self.separator}

    def _with(self, labels: Sequence[str], counts: Sequence[int], notes: Sequence[str]) -> Self:
        return type(self)(labels, counts=counts, notes=notes, separator=self.separator)


class BoxClasses(_Classes):
    """The classes of the boxes in each example, any number of boxes."""

    kind = "boxes"

    @classmethod
    def fit(cls, targets: Iterable[Boxes]) -> BoxClasses:
        """Return the classes that occur; one is enough. Regions of many things are not counted.

        Raises:
            DataError: If there are none.
        """
        found: Counter[str] = Counter()
        for target in targets:
            for label, crowd in zip(target.labels, target.crowd.tolist(), strict=True):
                found[as_category(label)] += not crowd
        # Numbered in the order of their names, whatever numbers a file has, which may have holes.
        labels = sorted((label for label, count in found.items() if count), key=_rank)
        if not labels:
            raise DataError(
                "labels",
                "no training picture has a box around a single thing",
                "Check the data section, or raise data.limit where it is set",
            )
        return cls(labels, counts=[found[label] for label in labels])

    def encode(self, targets: Sequence[Boxes]) -> Tensor:
        """Return class numbers (N, K) int64, ``IGNORED`` where an example has fewer boxes than
        another; K is 1 at least.

        Raises:
            DataError: If a label is not one of the training split's.
        """
        most = max((len(target.labels) for target in targets), default=0)
        rows = torch.full((len(targets), max(1, most)), IGNORED, dtype=torch.int64)
        for row, target in zip(rows, targets, strict=True):
            numbers = [self._number_of(as_category(label)) for label in target.labels]
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return rows


def _find_separator(targets: Sequence[Any]) -> str:
    """Return what is between the labels of texts: a bar, or the one sign that occurs instead."""
    texts = [target for target in targets if isinstance(target, str)]
    shown = {
        sign: next((text for text in texts if sign in text and not text.startswith("[")), None)
        for sign in "|;,"
    }
    if shown["|"] is None and shown[";"] and shown[","]:
        raise DataError(
            "labels",
            f"{shown[';']!r} and {shown[',']!r} have two signs that can be between labels",
            "Put a bar between them: a|b",
        )
    return next((sign for sign, text in shown.items() if text is not None), "|")


def _note_several(labels: Sequence[str]) -> list[str]:
    """Return a note where labels look like several in one text: of ``a;b``, ``a`` and ``b;c`` two
    share a part; or where they are lists."""
    found = [label for label in labels if label.startswith("[") and label.endswith("]")]
    for sign in "|;,":
        joined = [label for label in labels if sign in label]
        parts = Counter(part.strip() for label in labels for part in set(label.split(sign)))
        if joined and all(parts[each.strip()] > 1 for each in joined[0].split(sign)):
            found += joined
    if not found:
        return []
    return [
        f"labels: {found[0]!r} looks like several labels of one example, and is one class here: if"
        " it is several, set task.labels: multi_label"
    ]


def _rank(label: str) -> tuple[bool, float, str]:
    # Numbers before words, and 10 after 9.
    try:
        return (False, float(label), label)
    except ValueError:
        return (True, 0.0, label)


def _by_size(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels that are numbers from the smallest to the largest."""
    remedy = "Set order: [...] from the lowest class to the highest"
    places: dict[float, str] = {}
    for label in labels:
        is_word, number, _ = _rank(label)
        if is_word or not math.isfinite(number):
            raise DataError(
                "recipe.task.order",
                f"is null, which orders numbers by size, but the class {label!r} is no number",
                remedy,
            )
        # "1" and "1.0" are two labels, but one number.
        if number in places:
            raise DataError(
                "recipe.task.order",
                f"is null, but the classes {places[number]!r} and {label!r} are equal",
                remedy,
            )
        places[number] = label
    return tuple(places[number] for number in sorted(places))
