"""What ``groundup data inspect`` looks at: a sample drawn from all examples, and copies among
all."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from groundup.contracts.data import HasTexts
from groundup.core.values import Example, Split, StoredFile

__all__ = ["LIMIT", "Copies", "Sample", "content_of", "read_in_batches"]

# examples of a split that are looked at closely
LIMIT = 2_000
SEED = 0


def read_in_batches(examples: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield the examples in order, so many at a time."""
    given = iter(examples)
    while batch := list(islice(given, size)):
        yield batch


@dataclass
class Sample:
    """So many of a split's examples, each as likely as any other, in the order of the source.

    Attributes:
        limit: How many at most.
        total: How many were seen.
    """

    limit: int = LIMIT
    total: int = 0
    _kept: dict[int, tuple[int, Any]] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))

    def add(self, examples: Iterable[Any]) -> None:
        """Draw from further examples (Vitter, 1985, "Random sampling with a reservoir",
        algorithm R)."""
        for example in examples:
            place = self.total
            if place >= self.limit:
                place = self._random.randrange(self.total + 1)
            if place < self.limit:
                self._kept[place] = (self.total, example)
            self.total += 1

    @property
    def rows(self) -> list[Any]:
        """The examples that were drawn."""
        return [example for _, example in sorted(self._kept.values(), key=lambda kept: kept[0])]

    @property
    def in_words(self) -> str:
        """How many were looked at, of how many, and how they were drawn."""
        if self.total <= self.limit:
            return "all"
        return f"{self.limit:,} of {self.total:,} rows, drawn with seed {SEED}"


def content_of(example: Any) -> Any:
    """Return what an example holds besides its target."""
    if isinstance(example, Example):
        return example.inputs
    return tuple(example.texts) if isinstance(example, HasTexts) else str(example)


class Copies:
    """Finds inputs that are exactly the same, in one split and in several.

    Only hashes are kept. A file is read only where another one has as many bytes.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Counter[bytes]] = defaultdict(Counter)
        self._files: dict[int, list[tuple[str, Path]]] = defaultdict(list)

    def add(self, split: Split, inputs: Iterable[Any]) -> None:
        """Take the inputs of further examples."""
        seen = self._seen[split]
        for each in inputs:
            if isinstance(each, Path):
                self._files[each.stat().st_size].append((split, each))
            else:
                seen[_digest(each)] += 1

    def count(self, split: Split) -> tuple[int, int]:
        """Return how many examples of a split repeat an earlier one of it, and how many are in the
        training split as well."""
        self._read_files()
        seen = self._seen[split]
        train = self._seen["train"]
        shared = 0
        if split != "train":
            shared = sum(count for key, count in seen.items() if key in train)
        return seen.total() - len(seen), shared

    def _read_files(self) -> None:
        for size, files in self._files.items():
            for number, (split, path) in enumerate(files):
                key = f"{size} {number}".encode()
                if len(files) > 1:
                    with path.open("rb") as file:
                        key = hashlib.file_digest(file, "sha256").digest()
                self._seen[split][key] += 1
        self._files.clear()


def _digest(inputs: Any) -> bytes:
    """Return a hash of what an example holds: of a stored file its bytes."""
    if isinstance(inputs, StoredFile):
        return hashlib.sha256(inputs.read()).digest()
    if isinstance(inputs, np.ndarray):
        about = f"{inputs.dtype} {inputs.shape}".encode()
        return hashlib.sha256(about + np.ascontiguousarray(inputs).tobytes()).digest()
    # A row shows itself with the whole table that it is a view of.
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        inputs = tuple(each if _is_plain(each) else _digest(each) for each in inputs)
    return hashlib.sha256(repr(inputs).encode("utf-8", "replace")).digest()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
