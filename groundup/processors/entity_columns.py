"""Columns of users or of items as tensors: numbers scaled, categories numbered, and a number for
each word of columns that hold several.

Shape legend: B rows, I numbers, K categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.core.errors import DataError
from groundup.core.values import Batch, Example
from groundup.processors.saved_files import saved_settings, write_json
from groundup.processors.table import TableConfig, TableProcessor

__all__ = ["EntityColumns"]


class EntityColumns:
    """What becomes of the columns of users, or of items.

    Args:
        table: Reads columns of one value; None where there are none.
        words: The words that are known of each column of several.
        notes: What there is to say of the training split.
    """

    def __init__(
        self,
        table: TableProcessor | None,
        words: Mapping[str, Sequence[str]],
        notes: Sequence[str] = (),
    ) -> None:
        self.table = table
        self.words = {name: tuple(known) for name, known in words.items()}
        self.notes = tuple(notes)

    @classmethod
    def fit(cls, what: str, rows: Sequence[Mapping[str, Any]], min_count: int) -> EntityColumns:
        """Return what the rows of the training split show.

        Args:
            what: ``users`` or ``items``, for messages.
            rows: A dictionary of columns each; one without columns has none.
            min_count: Rarer values are taken together.
        """
        known = [row for row in rows if row]
        # All rows of a file have the same columns.
        names = list(known[0]) if known else []
        lists = [name for name in names if any(isinstance(row[name], list) for row in known)]
        words: dict[str, list[str]] = {}
        for name in lists:
            counts = Counter(word for row in known for word in {*(row[name] or ())})
            # One that all have tells nothing.
            kept = [w for w, n in counts.items() if min_count <= n < len(known)]
            words[name] = sorted(kept, key=lambda word: (-counts[word], word))
        # Values of one column that are read as those of any table.
        single = [name for name in names if name not in lists]
        if not single:
            return cls(None, words)
        examples = [
            Example(str(n), {name: row[name] for name in single}) for n, row in enumerate(known)
        ]
        try:
            table = TableConfig(min_count=min_count).fit(lambda: iter(examples))
        except DataError as error:
            # Columns are an addition: ids alone can be learned from.
            notes = [f"columns of {what} are not read: {error.problem}"]
            return cls(None, words, notes)
        return cls(table, words, [f"{what}: {note}" for note in table.notes])

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        single = [column.name for column in self.table.columns] if self.table else []
        return (*single, *self.words)

    @property
    def width(self) -> int:
        """How many numbers are made of a row."""
        single = self.table.input_shape[0] if self.table else 0
        return single + sum(map(len, self.words.values()))

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many values each categorical column has, the unknown one included."""
        return self.table.category_sizes if self.table else ()

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return ``numbers`` (B, I) float32 and ``categories`` (B, K) int64, where I and K may be
        0. A column that a row lacks is missing: its mean, or its unknown category."""
        categories = torch.zeros(len(rows), 0, dtype=torch.int64)
        parts = []
        if self.table is not None:
            names = [column.name for column in self.table.columns]
            read = self.table.encode_inputs([{n: row.get(n) for n in names} for row in rows])
            parts.append(read["inputs"])
            if "categories" in read:
                categories = read["categories"]
        for name, known in self.words.items():
            places = {word: n for n, word in enumerate(known)}
            several = torch.zeros(len(rows), len(known))
            for n, row in enumerate(rows):
                for word in row.get(name) or ():
                    if word in places:
                        several[n, places[word]] = 1.0
            parts.append(several)
        numbers = torch.cat(parts, 1) if parts else torch.zeros(len(rows), 0)
        return {"numbers": numbers, "categories": categories}

    def save(self, folder: Path) -> None:
        """Write processor.json, and below it that of the table."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = {"name": "columns", "words": self.words, "table": self.table is not None}
        write_json(folder / "processor.json", saved)
        if self.table is not None:
            self.table.save(folder / "table")

    @classmethod
    def load(cls, folder: Path) -> EntityColumns:
        """Return what ``save`` wrote to ``folder``.

        Raises:
            DataError: If a file is missing or damaged.
        """
        with saved_settings(folder) as saved:
            table = TableProcessor.load(folder / "table") if saved["table"] else None
            return cls(table, saved["words"])
