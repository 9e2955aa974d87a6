"""What is to be predicted, as tensors: one class, several classes, or numbers. Learned from the training split.

Legend: N examples, K classes, R numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import DataError, did_you_mean
from groundup.core.interfaces import Targets

__all__ = ["Classes", "Numbers", "targets_from_json"]


class Classes:
    """One of several classes, or any number of them at once.

    Args:
        labels: The classes' names in the order of their numbers.
        several: An example may have any number of labels, given as a list or as ``"a|b"``.
        counts: How many training examples each class has; empty where nobody counted.
    """

    def __init__(self, labels: Sequence[str], *, several: bool = False, counts: Sequence[int] = ()) -> None:
        self.labels, self.kind = tuple(labels), "classes" if several else "class"
        self.outputs, self.counts = len(self.labels), tuple(counts)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    @classmethod
    def fit(cls, targets: Iterable[Any]) -> Classes:
        """Return the classes that occur, one in each example: numbers in their order, words in the alphabet's.

        Raises:
            DataError: If there are fewer than two: there is nothing to tell apart.
        """
        found = Counter(_label(target) for target in targets)
        labels = sorted(found, key=_rank)
        if len(labels) < 2:
            problem = f"every training example has the label {labels[0]!r}" if labels else "no training example has any"
            raise DataError("labels", f"{problem}; a classifier needs two classes or more", "Check the data section")
        return cls(labels, counts=[found[label] for label in labels])

    @classmethod
    def fit_several(cls, targets: Iterable[Any]) -> Classes:
        """Return the classes that occur where an example may have any number of them.

        Raises:
            DataError: If there are none.
        """
        found = Counter(label for target in targets for label in set(_labels(target)))
        labels = sorted(found, key=_rank)
        if not labels:
            raise DataError("labels", "no training example has any", "Check the data section")
        return cls(labels, several=True, counts=[found[label] for label in labels])

    def counted_as(self, other: Targets) -> Classes:
        """Return the same classes with the counts of another training split, 0 for a class that is not there."""
        found = dict(zip(other.labels, getattr(other, "counts", ()), strict=False))
        counts = [found.get(label, 0) for label in self.labels]
        return Classes(self.labels, several=self.kind == "classes", counts=counts)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return class numbers (N,) int64; of several classes (N, K) float32, 1 for each that an example has.

        Raises:
            DataError: If a label is none of the training split's.
        """
        if self.kind == "class":
            return torch.tensor([self._number(_label(target)) for target in targets], dtype=torch.int64)
        rows = torch.zeros(len(targets), self.outputs)
        for row, target in zip(rows, targets, strict=True):
            row[[self._number(label) for label in _labels(target)]] = 1.0
        return rows

    def _number(self, label: str) -> int:
        if label not in self._numbers:
            known, hint = ", ".join(self.labels[:12]), did_you_mean(label, self.labels)
            problem = f"label {label!r} is none of the training split's; {hint}known: {known}"
            raise DataError("labels", problem, "Correct it, or add it to the training data")
        return self._numbers[label]

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "labels": self.labels, "counts": self.counts}


class Numbers:
    """One number or several; targets have mean 0 and variance 1 over the training split.

    Args:
        mean: Of each number.
        scale: Standard deviation of each number.
        labels: The numbers' names, where they have any.
    """

    kind = "numbers"

    def __init__(self, mean: Sequence[float], scale: Sequence[float], labels: Sequence[str] = ()) -> None:
        self.mean, self.scale, self.labels = tuple(mean), tuple(scale), tuple(labels)
        self.outputs = len(self.mean)

    @classmethod
    def fit(cls, targets: Iterable[Any], labels: Sequence[str] = ()) -> Numbers:
        """Return the numbers' mean and standard deviation; a constant one is only shifted.

        Raises:
            DataError: If there are no targets, or one is no finite number.
        """
        values = _numbers(list(targets))
        if not len(values):
            raise DataError("targets", "there are no training examples", "Check the data section")
        spread = values.std(0, unbiased=False)
        return cls(values.mean(0).tolist(), torch.where(spread > 0, spread, 1.0).tolist(), labels)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, R) float32.

        Raises:
            DataError: If one is no finite number.
        """
        mean, scale = torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.scale, dtype=torch.float64)
        return ((_numbers(targets) - mean) / scale).float()

    def decode(self, values: Tensor) -> Tensor:
        """Return (N, R) in the data's own units."""
        scale, mean = (torch.tensor(each, dtype=torch.float64) for each in (self.scale, self.mean))
        return values.double().cpu() * scale + mean

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        return {"kind": self.kind, "mean": self.mean, "scale": self.scale, "labels": self.labels}


def targets_from_json(saved: dict[str, Any]) -> Targets:
    """Return what ``to_json`` described."""
    if saved["kind"] == Numbers.kind:
        return Numbers(saved["mean"], saved["scale"], saved["labels"])
    return Classes(saved["labels"], several=saved["kind"] == "classes", counts=saved.get("counts", ()))


def _label(target: Any) -> str:
    if target is None or (isinstance(target, float) and math.isnan(target)):
        raise DataError("labels", "an example has no label", "Give it one, or remove it")
    return str(target)


def _labels(target: Any) -> list[str]:
    if isinstance(target, str):
        return [part for part in target.split("|") if part]
    return [str(part) for part in ([] if target is None else target)]


def _rank(label: str) -> tuple[bool, float, str]:
    try:
        return (False, float(label), label)
    except ValueError:
        return (True, 0.0, label)


def _numbers(targets: Sequence[Any]) -> Tensor:
    for number, target in enumerate(targets):
        for value in target if isinstance(target, list | tuple) else (target,):
            if isinstance(value, str) or value is None or not math.isfinite(value):
                problem = f"target {value!r} of example {number} is no finite number"
                raise DataError("targets", problem, "Correct it, or remove the example")
    values = torch.tensor(list(targets), dtype=torch.float64)
    return values[:, None] if values.dim() == 1 else values
