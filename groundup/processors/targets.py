"""What is to be predicted, as tensors: one class, several classes, numbers, or several of these at
once.

Learned from the training split. Legend: N examples, K classes, R numbers, W columns.
"""

from __future__ import annotations

import math
from abc import ABC
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from groundup.contracts.processors import Targets
from groundup.core.errors import DataError, did_you_mean

__all__ = [
    "FixedTargets",
    "MultiLabel",
    "MultiTaskTargets",
    "RegressionTargets",
    "SingleLabel",
    "is_missing",
    "target_of",
    "targets_from_json",
]


_OTHERS = (
    "Add examples of another class, or check which column, array or folder the labels are read from"
)


class _Classes(Targets, ABC):
    """Classes by number.

    Args:
        labels: The classes' names in the order of their numbers.
        counts: How many training examples each class has; empty where nobody counted.
    """

    def __init__(self, labels: Sequence[str], *, counts: Sequence[int] = ()) -> None:
        self.labels = tuple(labels)
        self.counts = tuple(counts)
        self.outputs = len(self.labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def counted_as(self, other: Targets) -> Self:
        """Return the same classes with the counts of another training split, 0 for a class that is
        not there."""
        found = dict(zip(other.labels, other.counts, strict=False))
        return type(self)(self.labels, counts=[found.get(label, 0) for label in self.labels])

    def in_order(self, labels: Sequence[str]) -> Self:
        """Return the same classes, numbered in the order of ``labels``, which are all of them."""
        if not self.counts:
            return type(self)(labels)
        counts = dict(zip(self.labels, self.counts, strict=True))
        return type(self)(labels, counts=[counts[label] for label in labels])

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "labels": self.labels, "counts": self.counts}

    def _number_of(self, label: str) -> int:
        if label not in self._numbers:
            known = ", ".join(self.labels[:12])
            hint = did_you_mean(label, self.labels)
            problem = f"label {label!r} is none of the training split's; {hint}known: {known}"
            raise DataError("labels", problem, "Correct it, or add it to the training data")
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
        found = Counter(_label(target) for target in targets)
        labels = sorted(found, key=_rank)
        if len(labels) < 2:
            problem = "no training example has any"
            if labels:
                problem = f"every training example has the label {labels[0]!r}"
            raise DataError("labels", f"{problem}; a classifier needs two classes or more", _OTHERS)
        return cls(labels, counts=[found[label] for label in labels])

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
        labels = _by_size(found.labels) if order is None else tuple(order)
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
        return torch.tensor(
            [self._number_of(_label(target)) for target in targets], dtype=torch.int64
        )


class MultiLabel(_Classes):
    """Any number of classes for each example, given as a list or as ``"a|b"``."""

    kind = "classes"

    @classmethod
    def fit(cls, targets: Iterable[Any]) -> MultiLabel:
        """Return the classes that occur.

        Raises:
            DataError: If there are none.
        """
        found = Counter(label for target in targets for label in set(_labels(target)))
        labels = sorted(found, key=_rank)
        if not labels:
            raise DataError("labels", "no training example has any", "Check the data section")
        return cls(labels, counts=[found[label] for label in labels])

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, K) float32, 1 for each class that an example has.

        Raises:
            DataError: If a label is not one of the training split's.
        """
        rows = torch.zeros(len(targets), self.outputs)
        for row, target in zip(rows, targets, strict=True):
            row[[self._number_of(label) for label in _labels(target)]] = 1.0
        return rows


class RegressionTargets(Targets):
    """One number or several; targets have mean 0 and variance 1 over the training split.

    Args:
        mean: Of each number.
        scale: Standard deviation of each number.
        labels: The numbers' names, where they have any.
    """

    kind = "numbers"

    def __init__(
        self, mean: Sequence[float], scale: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        self.labels = tuple(labels)
        self.outputs = len(self.mean)

    @classmethod
    def fit(cls, targets: Iterable[Any], labels: Sequence[str] = ()) -> RegressionTargets:
        """Return the numbers' mean and standard deviation; a constant one is only shifted.

        Raises:
            DataError: If there are no targets, or one is no finite number.
        """
        values = _numbers(list(targets))
        if not len(values):
            raise DataError("targets", "there are no training examples", "Check the data section")
        # A constant number has a deviation of 0, which cannot be divided by.
        spread = values.std(0, unbiased=False)
        return cls(values.mean(0).tolist(), torch.where(spread > 0, spread, 1.0).tolist(), labels)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, R) float32.

        Raises:
            DataError: If one is no finite number.
        """
        mean = torch.tensor(self.mean, dtype=torch.float64)
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return ((_numbers(targets) - mean) / scale).float()

    def decode(self, values: Tensor) -> Tensor:
        """Return (N, R) in the data's own units."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return values.double().cpu() * scale + mean

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "mean": self.mean, "scale": self.scale, "labels": self.labels}


class MultiTaskTargets(Targets):
    """Named targets of several tasks, any of which an example may lack.

    A model's outputs are the parts' outputs side by side: one linear layer of that many outputs is
    the same as a layer, or head, for each part.

    Args:
        parts: The targets of each task by its name, in the order of the outputs.
    """

    kind = "several"

    def __init__(self, parts: Mapping[str, Targets]) -> None:
        self.parts = dict(parts)
        self.outputs = sum(part.outputs for part in self.parts.values())
        self.labels = tuple(
            f"{name}/{label}" for name in self.parts for label in self._labels_of(name)
        )

    def _labels_of(self, name: str) -> Iterable[Any]:
        part = self.parts[name]
        return part.labels or range(part.outputs)

    def columns(self, name: str) -> slice:
        """Return which of a model's outputs belong to a part."""
        names = list(self.parts)
        before = sum(self.parts[other].outputs for other in names[: names.index(name)])
        return slice(before, before + self.parts[name].outputs)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, W) float64: the parts' encodings side by side, a class as one column; NaN
        where one is missing.

        Raises:
            DataError: If a target is no mapping from names to targets, or means nothing to its
                part.
        """
        # Each part sees only the examples that have its target.
        columns = []
        for name, part in self.parts.items():
            found = [target_of(target, name) for target in targets]
            rows = [row for row, target in enumerate(found) if not is_missing(target)]
            values = part.encode([found[row] for row in rows]).double()
            values = values[:, None] if values.dim() == 1 else values
            # In float64 the numbers of classes stay exact next to NaN.
            whole = torch.full((len(targets), values.shape[1]), math.nan, dtype=torch.float64)
            whole[rows] = values
            columns.append(whole)
        return torch.cat(columns, 1)

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {
            "kind": self.kind,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }


class FixedTargets(Targets):
    """What is predicted is the same whatever the data: a vector (no labels), or an answer's first
    and last token.

    Args:
        labels: The outputs' names.
    """

    kind = "fixed"
    learned = False

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.outputs = len(self.labels)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, 0): the task reads targets along with the texts."""
        return torch.zeros(len(targets), 0)

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "labels": self.labels}


def target_of(target: Any, name: str) -> Any:
    """Return the target called ``name`` of an example with several; None where it has none.

    Raises:
        DataError: If the example's target is no mapping.
    """
    if target is None:
        return None
    if not isinstance(target, Mapping):
        raise DataError(
            "targets",
            f"an example has the one target {target!r}, but several tasks need a mapping from their"
            " names to targets",
            "Give each its name, as data.labels_keys does for arrays",
        )
    return target.get(name)


def is_missing(target: Any) -> bool:
    """Return whether an example has no such target: None, or a number that is NaN."""
    return target is None or (isinstance(target, float) and math.isnan(target))


def targets_from_json(saved: dict[str, Any]) -> Targets:
    """Return what ``to_json`` described."""
    match saved["kind"]:
        case MultiTaskTargets.kind:
            parts = {name: targets_from_json(part) for name, part in saved["parts"].items()}
            return MultiTaskTargets(parts)
        case FixedTargets.kind:
            return FixedTargets(saved["labels"])
        case RegressionTargets.kind:
            return RegressionTargets(saved["mean"], saved["scale"], saved["labels"])
        case MultiLabel.kind:
            return MultiLabel(saved["labels"], counts=saved.get("counts", ()))
    return SingleLabel(saved["labels"], counts=saved.get("counts", ()))


def _label(target: Any) -> str:
    if is_missing(target) or target == "":
        raise DataError("labels", "an example has no label", "Give it one, or remove it")
    return str(target)


def _labels(target: Any) -> list[str]:
    if isinstance(target, str):
        return [part for part in target.split("|") if part]
    return [str(part) for part in ([] if target is None else target)]


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
            problem = f"is null, which orders numbers by size, and the class {label!r} is no number"
            raise DataError("recipe.task.order", problem, remedy)
        # "1" and "1.0" are two labels, but one number.
        if number in places:
            raise DataError(
                "recipe.task.order",
                f"is null, and the classes {places[number]!r} and {label!r} are equal",
                remedy,
            )
        places[number] = label
    return tuple(places[number] for number in sorted(places))


def _numbers(targets: Sequence[Any]) -> Tensor:
    for number, target in enumerate(targets):
        for value in target if isinstance(target, list | tuple) else (target,):
            if isinstance(value, str) or value is None or not math.isfinite(value):
                problem = f"target {value!r} of example {number} is no finite number"
                raise DataError("targets", problem, "Correct it, or remove the example")
    values = torch.tensor(list(targets), dtype=torch.float64)
    return values[:, None] if values.dim() == 1 else values
