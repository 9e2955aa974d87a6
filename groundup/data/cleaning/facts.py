"""What is known of each document by itself: whether it is removed, a digest, lengths and a
signature, in files with a row for each. All that depends on other documents is decided from them.

A folder holds ``facts.bin`` (rows of ``FACTS``) and, where near-duplicates matter,
``signatures.bin`` (D, 64) uint32: 300 bytes a document, and none of them in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.values import Document, Split
from groundup.data.cleaning.cleaning import (
    Cleaning,
    CleaningReport,
    digest_of,
    normalise_text,
    reason_to_remove,
)
from groundup.data.cleaning.minhash import signatures_of

__all__ = ["FACTS", "REASONS", "SIDES", "FactsWriter", "read_facts"]

SIDES: dict[Split, int] = {"train": 1, "validation": 2, "test": 3}  # as bytes
# Why a document is removed, by number; 0 is kept. The first three are known of a document alone.
REASONS = (
    "",
    "too_short",
    "too_long",
    "repetitive",
    "exact_duplicate",
    "near_duplicate",
    "same_as_validation",
    "same_as_test",
    "near_duplicate_of_validation",
    "near_duplicate_of_test",
    "group_is_held_out",
)
# Lengths in characters, as it was read and as it is kept, and in bytes; the digest is a number of
# 128 bits in two halves, the higher first.
FACTS = np.dtype(
    [
        ("digest", "<u8", (2,)),
        ("characters_read", "<u8"),
        ("characters", "<u8"),
        ("bytes", "<u8"),
        ("side", "u1"),
        ("reason", "u1"),
        ("changed", "u1"),
    ]
)
# A signature costs less where many are made at once; texts wait for it up to this many characters.
_BATCH_CHARACTERS = 250_000
_BATCH_DOCUMENTS = 4_096
_ROWS_AT_ONCE = 1 << 14


class FactsWriter:
    """Writes the facts of documents, in the order in which they are added.

    Args:
        folder: Where the files are written.
        settings: What cleaning changes and removes.

    Attributes:
        report: The first documents that are removed, whatever the others are.
        rows: How many documents were added.
    """

    def __init__(self, folder: Path, settings: Cleaning) -> None:
        self.report = CleaningReport()
        self.rows = 0
        self._settings = settings
        self._facts = (folder / "facts.bin").open("wb")
        self._signatures = None
        if settings.near_duplicates != "keep":
            self._signatures = (folder / "signatures.bin").open("wb")
        self._waiting: list[tuple[Any, ...]] = []
        self._texts: list[str] = []
        self._characters = 0

    def __enter__(self) -> FactsWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._facts.close()
            if self._signatures is not None:
                self._signatures.close()

    def add(self, split: Split, document: Document) -> str | None:
        """Note a document that is named for a split; return its text as cleaning changes it, or
        None where it is removed."""
        text = normalise_text(document.text, self._settings)
        reason = reason_to_remove(text, self._settings)
        changed = text != document.text
        if reason is not None:
            self.report.show(reason, Document(document.name, text, document.origin))
        coded = text.encode()
        digest = digest_of(coded)
        halves = (int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big"))
        lengths = (len(document.text), len(text), len(coded))
        number = REASONS.index(reason or "")
        self._waiting.append((halves, *lengths, SIDES[split], number, changed))
        # what is removed is compared with nothing, but has its row like all others
        self._texts.append("" if reason else text)
        self._characters += len(text)
        self.rows += 1
        if self._characters >= _BATCH_CHARACTERS or len(self._texts) >= _BATCH_DOCUMENTS:
            self._flush()
        return None if reason else text

    def _flush(self) -> None:
        self._facts.write(np.array(self._waiting, FACTS).data)
        if self._signatures is not None and self._texts:
            self._signatures.write(signatures_of(self._texts).data)
        self._waiting.clear()
        self._texts.clear()
        self._characters = 0


def read_facts(folder: Path) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the facts of all documents in order, in arrays of ``FACTS``, each with the number of
    its first."""
    path = folder / "facts.bin"
    for first in range(0, path.stat().st_size // FACTS.itemsize, _ROWS_AT_ONCE):
        offset = first * FACTS.itemsize
        yield first, np.fromfile(path, FACTS, _ROWS_AT_ONCE, offset=offset)
