"""One class in several spellings is one class: labels are read alike, and what was read so is
said."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from groundup.core.errors import DataError
from groundup.media.table_values import as_category

__all__ = ["LabelSpellings", "differ_in_case", "is_missing", "split_labels"]

# spellings that a note lists
_LISTED = 5
# A tuple made once: a union of types would be made for every label.
_PLAIN = (str, int, float, bytes)
_NO_TARGET = frozenset(("", "na", "n/a", "nan", "nat", "null", "<na>", "#n/a"))
_LIKE_MISSING = frozenset(("nan", "na", "n/a", "null", "none", "nat", "?", "-", "<na>", "#n/a"))


class LabelSpellings:
    """Reads labels, and counts how each is spelt."""

    def __init__(self) -> None:
        self._labels: dict[tuple[type, Any], str] = {}
        self._counts: Counter[tuple[type, Any]] = Counter()

    def read(self, targets: Iterable[Any]) -> list[str]:
        """Return the one spelling of each label; they are not counted.

        Raises:
            DataError: If one is empty.
        """
        labels = self._labels
        return [labels[key] for key in self._keys(targets)]

    def count(self, targets: Iterable[Any]) -> Counter[str]:
        """Return how often each label occurred by now, these included.

        Raises:
            DataError: If one is empty.
        """
        self._counts.update(self._keys(targets))
        found: Counter[str] = Counter()
        for key, count in self._counts.items():
            found[self._labels[key]] += count
        return found

    def _keys(self, targets: Iterable[Any]) -> Iterator[tuple[type, Any]]:
        """Yield a label as it is spelt, its one spelling known."""
        labels = self._labels
        for target in targets:
            # By type too: 1 and True are equal in Python.
            key = (type(target), target if isinstance(target, _PLAIN) else str(target))
            if key not in labels:
                label = as_category(target)
                if not label:
                    raise DataError(
                        "labels", "an example has no label", "Give it one, or remove it"
                    )
                labels[key] = label
            yield key

    def notes(self) -> list[str]:
        """Return what there is to say: labels of several spellings, and those that may be one."""
        spelt: dict[str, list[tuple[type, Any]]] = defaultdict(list)
        for key, label in self._labels.items():
            spelt[label].append(key)
        found = []
        changed = {
            f"{key[1]!r} {self._counts[key]:,}": self._counts[key]
            for label, keys in spelt.items()
            for key in keys
            if len(keys) > 1 and str(key[1]) != label
        }
        if changed:
            found.append(
                f"labels: {sum(changed.values()):,} of {self._counts.total():,} are another"
                f" spelling of a class, and read as it: {_list(changed)}"
            )
        found += [
            f"labels: {each}, and are different classes: write them alike if they are one"
            for each in differ_in_case(spelt)
        ]
        found += _differ_in_zeros(spelt)
        gone = [repr(label) for label in spelt if label.lower() in _LIKE_MISSING]
        if gone:
            found.append(
                f"labels: {_list(gone)} is a class here: if it stands for no label, remove the rows"
            )
        return found


def differ_in_case(labels: Iterable[str]) -> list[str]:
    """Return what to say of each group of labels that are one but for upper and lower case."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[label.casefold()].append(label)
    return [
        f"{_list(map(repr, several))} differ in upper and lower case alone"
        for several in alike.values()
        if len(several) > 1
    ]


def _differ_in_zeros(labels: Collection[str]) -> list[str]:
    """Return what to say of each group of labels that are one number, such as 1 and 01, or one
    truth, such as 1 and true."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        if label.isdecimal():
            alike[label.lstrip("0")].append(label)
    found = [(several, "are one number") for several in alike.values()]
    known = set(labels)
    for word, number in (("true", "1"), ("false", "0")):
        found.append(([each for each in (word, number) if each in known], "can mean the same"))
    return [
        f"labels: {_list(map(repr, several))} {why}, and are different classes: write them alike if"
        " they are one"
        for several, why in found
        if len(several) > 1
    ]


def is_missing(target: Any) -> bool:
    """Return whether an example has no target: None, a number that is NaN, or what stands for these
    in a file of text."""
    if isinstance(target, str):
        return target.strip().lower() in _NO_TARGET
    return target is None or (isinstance(target, float | np.floating) and math.isnan(target))


def split_labels(target: Any, separator: str) -> list[Any]:
    """Return the labels of one example: a list, or a text with the separator between them, or with
    a list in it as JSON or Python writes one."""
    if isinstance(target, list | tuple | np.ndarray):
        return list(target)
    if not isinstance(target, str):
        return [target] if as_category(target) else []
    text = target.strip()
    if text.startswith("[") and text.endswith("]"):
        for quoted in (text, text.replace("'", '"')):
            with contextlib.suppress(ValueError):
                return [label for label in json.loads(quoted) if as_category(label)]
    return [label for label in target.split(separator) if label.strip()]


def _list(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return ", ".join(shown[:_LISTED]) + more
