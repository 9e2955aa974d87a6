"""What is to be predicted, as tensors: numbers, several targets at once, or what is the same
whatever the data; classes are in ``class_targets``.

Learned from the training split. Legend: N examples, R numbers, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.processors import Targets
from groundup.core.errors import DataError
from groundup.media.column_format import Format
from groundup.media.labels import is_missing
from groundup.processors.class_targets import BoxClasses, MultiLabel, SingleLabel

__all__ = [
    "FixedTargets",
    "MultiTaskTargets",
    "RegressionTargets",
    "target_of",
    "targets_from_json",
]


class RegressionTargets(Targets):
    """One number or several; targets have mean 0 and variance 1 over the training split.

    Args:
        mean: Of each number.
        scale: Standard deviation of each number.
        labels: The numbers' names, where they have any.
        formats: How each is written.
        notes: What there is to say of how they are written.
    """

    kind = "numbers"

    def __init__(
        self,
        mean: Sequence[float],
        scale: Sequence[float],
        labels: Sequence[str] = (),
        formats: Sequence[Format] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.mean = tuple(mean)
        self.scale = tuple(scale)
        self.labels = tuple(labels)
        self.outputs = len(self.mean)
        self.formats = tuple(formats) or (Format(),) * self.outputs
        self.notes = tuple(notes)

    @classmethod
    def fit(
        cls,
        targets: Iterable[Any],
        labels: Sequence[str] = (),
        formats: Sequence[Format] = (),
        notes: Sequence[str] = (),
    ) -> RegressionTargets:
        """Return the numbers' mean and standard deviation; a constant one is only shifted.

        Raises:
            DataError: If there are no targets, or one is no finite number.
        """
        values = _numbers(list(targets))
        if not len(values):
            raise DataError("targets", "there are no training examples", "Check the data section")
        # A constant number has a deviation of 0, which cannot be divided by.
        spread = values.std(0, unbiased=False)
        scale = torch.where(spread > 0, spread, 1.0).tolist()
        return cls(values.mean(0).tolist(), scale, labels, formats, notes)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Return (N, R) float32.

        Raises:
            DataError: If one is no finite number.
        """
        mean = torch.tensor(self.mean, dtype=torch.float64)
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return ((_numbers(targets) - mean) / scale).float()

    def lacks(self, target: Any) -> bool:
        """Return whether an example has no such number."""
        return is_missing(target)

    def decode(self, values: Tensor) -> Tensor:
        """Return (N, R) in the data's own units."""
        mean = torch.tensor(self.mean, dtype=torch.float64)
        scale = torch.tensor(self.scale, dtype=torch.float64)
        return values.double().cpu() * scale + mean

    def to_json(self) -> dict[str, Any]:
        """Return what ``targets_from_json`` reads."""
        saved = {"kind": self.kind, "mean": self.mean, "scale": self.scale, "labels": self.labels}
        # Left out where numbers are written plainly, as in runs of before.
        if any(form != Format() for form in self.formats):
            saved["formats"] = [asdict(form) for form in self.formats]
        return saved


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
        self.notes = tuple(
            f"task {name}: {note}" for name, part in self.parts.items() for note in part.notes
        )
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
            rows = [row for row, target in enumerate(found) if not part.lacks(target)]
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


def targets_from_json(saved: dict[str, Any]) -> Targets:
    """Return what ``to_json`` described."""
    match saved["kind"]:
        case MultiTaskTargets.kind:
            parts = {name: targets_from_json(part) for name, part in saved["parts"].items()}
            return MultiTaskTargets(parts)
        case FixedTargets.kind:
            return FixedTargets(saved["labels"])
        case RegressionTargets.kind:
            formats = [
                Format(**form | {"missing": tuple(form["missing"])})
                for form in saved.get("formats", ())
            ]
            return RegressionTargets(saved["mean"], saved["scale"], saved["labels"], formats)
        case MultiLabel.kind:
            separator = saved.get("separator", "|")
            return MultiLabel(saved["labels"], counts=saved.get("counts", ()), separator=separator)
        case BoxClasses.kind:
            return BoxClasses(saved["labels"], counts=saved["counts"])
    return SingleLabel(saved["labels"], counts=saved.get("counts", ()))


def _numbers(targets: Sequence[Any]) -> Tensor:
    for number, target in enumerate(targets):
        for value in target if isinstance(target, list | tuple) else (target,):
            if isinstance(value, str) or value is None or not math.isfinite(value):
                raise DataError(
                    "targets",
                    f"target {value!r} of example {number} is no finite number",
                    "Correct it, or remove the example",
                )
    values = torch.tensor(list(targets), dtype=torch.float64)
    return values[:, None] if values.dim() == 1 else values
